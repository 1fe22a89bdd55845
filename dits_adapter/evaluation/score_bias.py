"""Score bias of stored vectors: how near each is to other queries, to be taken from its scores.

A vector that lies near to every text stands before the right one for most queries. With a bank of other queries B,
score(q, v) − w · b(v), b(v) = (1/τ) log mean_j exp(τ B_j · v): one number for each vector, computed once, and the
vectors stay as they are. It is the inverted softmax of QB-Norm (Bogolin et al., CVPR 2022), by a weight and with a
fixed bank.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import Scores
from dits_adapter.vectors import FloatArray, check_directions, check_vectors, unit

__all__ = ["BIAS_WEIGHT", "BiasedScores", "bias_sharpness", "score_bias"]

BIAS_WEIGHT = 0.5
"""Weight w of the bias."""

_SHARPNESS = 2.5
"""Sharpness τ times the spread of the bank's cosines with one vector, which makes τ free of an encoder's scale."""

_LEAST_SPREAD = 1e-4
"""Spread of cosines below which they are rounding, and the sharpness would be arbitrary."""

_BLOCK_ENTRIES = 2**21
"""Entries of a matrix of cosines in memory at a time: 8 MB."""


def bias_sharpness(items: NDArray[np.floating], bank: NDArray[np.floating]) -> float:
    """Return the sharpness τ = 2.5 / sd for `score_bias`.

    sd is the standard deviation of the bank's cosines with one item, in the mean over the items. A sample of some
    thousand items will do. All items of a collection need the same τ: choose it once, and keep it.

    Args:
        items: stored vectors, (m, d), of any norm.
        bank: vectors of other queries, (n, d), of any norm.

    Raises:
        InputError: wrong shapes, a NaN, infinite or zero row, no items, or cosines that are all alike.
    """
    queries = _checked_bank(bank)
    if not len(items):
        raise InputError("there are no items; the sharpness is that of a collection.")
    centered = queries.astype(np.float64) - queries.mean(0, dtype=np.float64)
    covariance = (centered.T @ centered / len(queries)).astype(np.float32)
    total = 0.0
    for start in range(0, len(items), _rows_of(covariance)):
        block = _checked_items(items[start : start + _rows_of(covariance)], queries)
        total += float(np.sqrt(np.maximum(np.sum((block @ covariance) * block, axis=1), 0)).sum())
    spread = total / len(items)
    if spread < _LEAST_SPREAD:
        raise InputError("the cosines of items and bank are all alike; a bank needs queries of many kinds.")
    return _SHARPNESS / spread


def score_bias(items: NDArray[np.floating], bank: NDArray[np.floating], *, sharpness: float) -> FloatArray:
    """Return b(v) = (1/τ) log mean_j exp(τ B_j · v) of stored vectors, (m,) float32.

    A search takes `BIAS_WEIGHT` times this from the cosine of each vector. b lies between the mean and the largest
    cosine of the vector with the bank. Items are read a block at a time, 8 MB of cosines each.

    Good queries are those of a query log, or captions of the kind. A caption of a stored item in the bank pushes
    down that very item: leave such captions out.

    Args:
        items: stored vectors, (m, d), of any norm; an array or a memory map.
        bank: vectors of other queries, (n, d), of any norm, as queries are when they search: adapted ones behind
            an adapter.
        sharpness: τ, of `bias_sharpness`.

    Raises:
        InputError: wrong shapes, a NaN, infinite or zero row, or a sharpness that is not positive.
    """
    queries = _checked_bank(bank)
    if not 0 < sharpness < np.inf:
        raise InputError(f"sharpness is {sharpness}; it is a positive number, of bias_sharpness.")
    result = np.empty(len(items), np.float32)
    for start in range(0, len(items), _rows_of(queries)):
        rows = slice(start, start + _rows_of(queries))
        exponents = np.float32(sharpness) * (_checked_items(items[rows], queries) @ queries.T)
        largest = exponents.max(axis=1, keepdims=True)
        mean = np.exp(exponents - largest).mean(axis=1, dtype=np.float64)
        result[rows] = (largest[:, 0] + np.log(mean)) / sharpness
    return result


class BiasedScores:
    """Score matrix (texts, videos) minus a part of the bias of each video, read in blocks of rows.

    Args:
        scores: the matrix.
        bias: of `score_bias`, (videos,).
        weight: w, the part that is taken.
    """

    def __init__(self, scores: Scores, bias: FloatArray, weight: float = BIAS_WEIGHT) -> None:
        self._scores = scores
        self._bias = np.float32(weight) * bias

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (texts, videos)."""
        return self._scores.shape

    def __getitem__(self, rows: slice, /) -> Any:
        return self._scores[rows] - self._bias


def _rows_of(matrix: FloatArray) -> int:
    return max(1, _BLOCK_ENTRIES // len(matrix))


def _checked_bank(bank: NDArray[np.floating]) -> FloatArray:
    queries = np.asarray(bank)
    check_vectors(queries, queries.shape[-1] if queries.ndim else 0)
    if not len(queries):
        raise InputError("the bank holds no queries.")
    check_directions(queries)
    return unit(queries)


def _checked_items(items: NDArray[np.floating], bank: FloatArray) -> FloatArray:
    check_vectors(items, bank.shape[1])
    check_directions(items)
    return unit(items)
