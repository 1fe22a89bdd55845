"""Evaluation of a similarity matrix in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dits_adapter._wording import counted
from dits_adapter.evaluation._retrieval import Retrieval
from dits_adapter.evaluation.metrics import Scores, Ties, checked_labels, ranks, video_to_text_ranks

__all__ = ["Evaluation", "evaluate_scores"]

_LINES = (
    ("r1", "R@1", 1),
    ("r5", "R@5", 1),
    ("r10", "R@10", 1),
    ("mdr", "MdR", 1),
    ("mnr", "MnR", 2),
    ("mrr", "MRR", 3),
)
"""Field, name and digits of each metric that is printed."""


@dataclass(frozen=True)
class Evaluation:
    """Retrieval by a similarity matrix in both directions; `str` of it is a table.

    Attributes:
        ties: rank of the right candidate among wrong ones of exactly its score.
        text_to_video: the texts search the videos.
        video_to_text: the videos search the texts; the best of a video's captions counts.
    """

    ties: Ties
    text_to_video: Retrieval
    video_to_text: Retrieval

    def __str__(self) -> str:
        blocks = [f"{self.ties} ties, 95 % bootstrap intervals"]
        for title, found in (("text to video", self.text_to_video), ("video to text", self.video_to_text)):
            lines = [f"{title}, {counted(found.metrics.n, 'query', 'queries')}"]
            for name, label, digits in _LINES:
                value, (low, high) = getattr(found.metrics, name), found.intervals[name]
                lines.append(f"  {label:<4} {value:>8.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


def evaluate_scores(
    scores: Scores, labels: npt.ArrayLike | None = None, *, ties: Ties = "pessimistic"
) -> Evaluation:
    """Evaluate a similarity matrix (texts, videos) in both directions, with 95 % bootstrap intervals.

    Captions of one video are drawn together; from video to text every query is a video of its own.

    Args:
        scores: finite numbers, higher is better, read a block of rows at a time: an array, a memory map, or
            `DotProducts`.
        labels: (texts,) int, the column of each text's video; by default the diagonal of a square matrix.
        ties: rank of the right candidate among wrong ones of exactly its score: last (`pessimistic`), first
            (`optimistic`) or in the middle (`mean`).

    Raises:
        InputError: a score that is not finite, by its row and column, labels that do not fit, or unknown `ties`.

    >>> print(evaluate_scores(np.eye(3)).text_to_video.metrics.r1)
    100.0
    """
    if not hasattr(scores, "shape"):
        scores = np.asarray(scores)
    columns = checked_labels(scores, labels).astype(np.int64)
    return Evaluation(
        ties,
        Retrieval.of(ranks(scores, columns, ties=ties), columns),
        Retrieval.of(video_to_text_ranks(scores, columns, ties=ties)),
    )
