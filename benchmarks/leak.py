"""Check for leaks: a scorer must not know which caption belongs to which video.

T-MASS's released evaluation pools the frames of video i under the caption of video i itself and compares every
query with the result: the right caption takes part in each video's vector, and R@1 rises by some eight points.
No scorer here is handed labels, but texts and videos often come in one order, which is a label too. So a scorer
is tested from outside: the score of a text and a video may depend on those two and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import DITSError

Texts = TypeVar("Texts", bound=npt.NDArray[Any])
Videos = TypeVar("Videos", bound=npt.NDArray[Any])


class LeakError(DITSError):
    """Scorer whose scores depend on more than their own text and video."""


def assert_blind(
    score: Callable[[Texts, Videos], npt.NDArray[np.floating[Any]]],
    texts: Texts,
    videos: Videos,
    *,
    alone: bool = True,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> None:
    """Check that a scorer scores each pair of a text and a video by itself.

    The texts are shuffled against the videos, which changes the pairing, then the videos, then each
    is left alone with a few of the others. Every score must follow its pair. Methods that look at other queries
    on purpose (QB-Norm, dual softmax) fail, as they should: they stand apart in the tables.

    Args:
        score: (n texts, m videos) -> (n, m) scores.
        texts: array whose rows are texts, at least two, in the order in which the evaluation has them.
        videos: array whose rows are videos (pooled vectors, or the vectors of their frames), at least two,
            in an order that a leak could exploit: video i that of text i.
        alone: True where a score must not depend on the other videos. False for scorers in stages, whose short
            list does: then no video is left out.
        tolerance: greatest difference that rounding may cause.
        seed: seed of the shuffling.

    Raises:
        LeakError: some score changed; the message says which and when.
    """
    rng = np.random.default_rng(seed)
    expected = score(texts, videos)
    rows, columns = np.arange(len(texts)), np.arange(len(videos))
    trials = [
        ("the texts were shuffled", rng.permutation(rows), columns),
        ("the videos were shuffled", rows, rng.permutation(columns)),
        ("the texts were shifted by one", np.roll(rows, 1), columns),
        ("every second text was left out", rows[::2], columns),
        ("the text was alone", rows[:1], columns),
    ]
    if alone:
        trials += [
            ("every second video was left out", rows, columns[::2]),
            ("the video was alone", rows, columns[-1:]),
        ]
    for change, some_texts, some_videos in trials:
        actual = score(texts[some_texts], videos[some_videos])
        difference = np.abs(actual - expected[np.ix_(some_texts, some_videos)])
        if not difference.max() <= tolerance:
            row, column = np.unravel_index(difference.argmax(), difference.shape)
            raise LeakError(
                f"the score of text {some_texts[row]} and video {some_videos[column]} changed by "
                f"{difference[row, column]:.3g} when {change}: it must depend on these two alone"
            )
