"""Scorers of texts and videos: score matrices (texts, videos), read in blocks of rows.

`DotProducts` (cosines of pooled vectors), `MaxSim`, `XPoolScores` (each video's frames pooled under each query)
and `TwoStage` score each text by itself: `assert_blind` holds for them. `DualSoftmax` normalizes by the other
queries of the test, which a search engine that answers one query at a time cannot do. `QBNorm` normalizes by a
fixed bank of other queries: with one number for each video, computed before, it serves one query at a time, as the
score bias does (`dits_adapter.score_bias`). Rows of both are marked, and compare with one another only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import DITSError
from dits_adapter.evaluation.metrics import DotProducts, Scores

Floats = npt.NDArray[np.floating]

SHORT_LIST = 50
"""Number of videos that the first stage hands to the second."""


class MaxSim:
    """Scorer by the greatest cosine of a text over a video's frames.

    Args:
        texts: unit vectors, (n, d).
        frames: unit vectors, (m, k, d).
    """

    def __init__(self, texts: Floats, frames: Floats) -> None:
        self._frames = frames.shape[1]
        self._products = DotProducts(texts, frames.reshape(-1, frames.shape[2]))
        self.shape = (len(texts), len(frames))

    def __getitem__(self, rows: slice, /) -> Floats:
        block = self._products[rows]
        best: Floats = block.reshape(len(block), self.shape[1], self._frames).max(axis=2)
        return best


class TwoStage:
    """Scorer in two stages: the best `short_list` videos of a first scorer, ordered by a second.

    Videos that tie with the last one of the short list are on it. Whether a video is on the list depends on the
    other videos, so `assert_blind` holds with `alone=False`.

    Args:
        first, second: scores of the same texts and videos between -1 and 1.
        short_list: length of the list.
    """

    def __init__(self, first: Scores, second: Scores, short_list: int = SHORT_LIST) -> None:
        self._first, self._second = first, second
        self.shape = first.shape
        self._short_list = min(short_list, self.shape[1])

    def __getitem__(self, rows: slice, /) -> Floats:
        first, second = self._first[rows], self._second[rows]
        last = np.partition(first, -self._short_list, axis=1)[:, -self._short_list, None]
        return np.where(first >= last, second, first - 4)  # below any cosine, in the order of the first stage


class DualSoftmax:
    """Dual softmax (CAMoE, Cheng et al. 2021): scores times their softmax over all queries of the test.

    Args:
        scores: scores of texts and videos.
        temperature: divides the scores inside the softmax.
    """

    def __init__(self, scores: Scores, temperature: float = 0.01) -> None:
        block = np.asarray(scores[:], dtype=np.float64)
        sharp = np.exp((block - block.max(axis=0)) / temperature)
        self._scores = block * sharp / sharp.sum(axis=0)
        self.shape = scores.shape

    def __getitem__(self, rows: slice, /) -> Floats:
        block: Floats = self._scores[rows]
        return block


class QBNorm:
    """QB-Norm (Bogolin et al., CVPR 2022, dynamic inverted softmax): normalizes scores by a bank of queries.

    Videos that are the best of some bank query are hubs. A query whose best video is a hub gets
    exp(β s(q, v)) / Σ_b exp(β s(b, v)), b over the bank; all others keep their scores.

    Args:
        scores: scores of the texts and videos.
        bank: bank of the bank's texts and the same videos.
        beta: inverse temperature.
    """

    def __init__(self, scores: Scores, bank: Scores, beta: float = 20.0) -> None:
        if bank.shape[1] != scores.shape[1]:
            raise DITSError(f"the bank scores {bank.shape[1]} videos, the texts {scores.shape[1]}")
        self._scores, self._beta = scores, beta
        self.shape = scores.shape
        total, hubs = np.zeros(self.shape[1]), np.zeros(self.shape[1], dtype=bool)
        for start in range(0, bank.shape[0], 1024):
            block = np.asarray(bank[start : start + 1024], dtype=np.float64)
            total += np.exp(beta * block).sum(axis=0)
            hubs[block.argmax(axis=1)] = True
        self._total, self._hubs = total, hubs

    def __getitem__(self, rows: slice, /) -> Floats:
        block = np.asarray(self._scores[rows], dtype=np.float64)
        to_hub = self._hubs[block.argmax(axis=1), None]
        return np.where(to_hub, np.exp(self._beta * block) / self._total, block)
