"""Maps from texts of one space to videos of another, in closed form; penalty and rank are chosen by folds."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import counted
from dits_adapter.adapters._folds import Problem, folds
from dits_adapter.adapters.affine import AffineAdapter, fitted_affine
from dits_adapter.adapters.moments import Matches, Moments, Rows
from dits_adapter.adapters.registry import AdapterEntry, register_entry
from dits_adapter.errors import InputError

__all__ = ["reduced_rank"]

_PENALTIES = tuple(10.0**exponent for exponent in (-5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1))
"""Weights of ‖A‖² relative to the number of pairs; unit texts have eigenvalues of the order of 1 / width."""

_SHARES = (0.125, 0.25, 0.5, 1.0)
"""Ranks, as parts of the full one."""

_ROUNDS = 2
"""Partitions of the videos that penalty and rank are chosen by."""

_MOST_PAIRS = 20_000
"""Pairs that penalty and rank are chosen on; of more, as many are drawn."""

_LEAST_VIDEOS = 10

_Matrix = NDArray[np.float64]


def reduced_rank(text: Rows, video: Rows) -> AffineAdapter:
    """Fit a ridge regression of reduced rank with intercept from texts to videos, of any two widths.

    The full map is that of `ridge`; of its fitted videos the principal components are kept (Izenman, 1975).
    Penalty and rank are those with the best mean reciprocal rank of held-out texts among held-out videos, in two
    partitions of the videos into five parts: with few pairs they keep the map from learning them by heart. Of more
    than 20,000 pairs as many are drawn to choose them; the map is fitted to all.

    Args:
        text: text embeddings, (n, d1), read block by block.
        video: embeddings of the matching videos, row by row, (n, d2); equal rows are one video.

    Raises:
        InputError: fewer than ten distinct videos, or a row that is zero or not finite.
    """
    return _reduced_rank(Matches(text, video))


def _reduced_rank(pairs: Matches) -> AffineAdapter:
    problem, _ = Problem.drawn(pairs, _MOST_PAIRS)
    if len(problem.videos) < _LEAST_VIDEOS:
        raise InputError(
            f"there are pairs of {counted(len(problem.videos), 'distinct video')}; a map between two spaces needs "
            f"{_LEAST_VIDEOS}."
        )
    choices = list(product(_PENALTIES, _SHARES))
    scores = np.zeros(len(choices))
    for seed in range(_ROUNDS):
        for fold in folds(problem, seed):
            part = problem.part(fold.seen)
            fit = _Fit(Moments.of(Matches(part.texts, part.videos[part.labels])))
            texts = problem.texts[fold.held]
            for number, (penalty, share) in enumerate(choices):
                weight, bias = fit.map(penalty, share)
                scores[number] += fold.reciprocal_ranks(texts @ weight + bias).sum()
    penalty, share = choices[int(scores.argmax())]
    weight, bias = _Fit(pairs.moments).map(penalty, share)
    return fitted_affine("reduced-rank", weight.T, bias)


class _Fit:
    """Least squares from centered texts to centered videos, for any penalty and rank."""

    def __init__(self, pairs: Moments) -> None:
        self._pairs = pairs
        self._eigenvalues, self._basis = np.linalg.eigh(pairs.text_text)
        self._image = self._basis.T @ pairs.text_video
        self._penalty, self._weight, self._components = -1.0, self._image, self._image

    def map(self, penalty: float, share: float) -> tuple[_Matrix, _Matrix]:
        """Return A (d1, d2) and b (d2,) of y = x A + b."""
        if penalty != self._penalty:
            shrunk = self._image / (self._eigenvalues + self._pairs.count * penalty)[:, None]
            self._penalty, self._weight = penalty, self._basis @ shrunk
            # Fitted videos X A have the covariance Aᵀ XᵀX A.
            covariance = shrunk.T @ (self._eigenvalues[:, None] * shrunk)
            self._components = np.linalg.eigh(covariance)[1][:, ::-1]
        rank = max(1, round(share * min(self._weight.shape)))
        kept = self._components[:, :rank]
        weight = self._weight @ kept @ kept.T
        return weight, self._pairs.video - self._pairs.text @ weight


register_entry(
    AdapterEntry("reduced-rank", AffineAdapter, {"method": "reduced-rank"}, lambda pairs: [_reduced_rank(pairs)])
)
