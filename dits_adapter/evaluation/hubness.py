"""Hubness: some stored vectors are among the nearest of many queries, most of them of none.

N_k(v) is the number of queries that have v among their k nearest. Its skewness is the measure of Radovanović,
Nanopoulos and Ivanović (JMLR 2010). Hubs stand before the right video of most queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import Scores, blocks

__all__ = ["Hubness"]


@dataclass(frozen=True, eq=False)
class Hubness:
    """Hubness of stored vectors for some queries.

    Attributes:
        occurrences: N_k of each vector, (m,) int.
        k: number of nearest vectors of a query.
        queries: number of queries.
    """

    occurrences: NDArray[np.int64] = field(repr=False)
    k: int
    queries: int

    @classmethod
    def of(cls, scores: Scores, *, k: int = 10) -> Hubness:
        """Count how often each column is among the k best of a row; of equal scores the first column is better.

        Args:
            scores: (queries, vectors) finite numbers, higher is better; read a block of rows at a time
                (`DotProducts`).
            k: number of nearest vectors of a query, below the number of vectors.

        Raises:
            InputError: no matrix, a score that is NaN or infinite, or a k outside its range.

        >>> Hubness.of(np.array([[0.9, 0.1, 0.3], [0.8, 0.2, 0.1]]), k=1).occurrences
        array([2, 0, 0])
        """
        if len(scores.shape) != 2 or 0 in scores.shape:
            raise InputError(
                f"scores must be a matrix (queries, vectors) with entries, not of shape {scores.shape}."
            )
        if not 1 <= k < scores.shape[1]:
            raise InputError(
                f"k is {k}; it is at least 1 and below the number of vectors, {scores.shape[1]}, where all are "
                "near to every query."
            )
        occurrences = np.zeros(scores.shape[1], np.int64)
        for _, block in blocks(scores):
            nearest = np.argsort(-block, axis=1, kind="stable")[:, :k]
            occurrences += np.bincount(nearest.ravel(), minlength=len(occurrences))
        return cls(occurrences, k, scores.shape[0])

    @property
    def skewness(self) -> float:
        """Skewness of N_k, E[(N − μ)³] / σ³; 0 where all vectors occur alike."""
        centered = self.occurrences - self.occurrences.mean()
        spread = float(np.sqrt(np.mean(centered**2)))
        return float(np.mean(centered**3)) / spread**3 if spread else 0.0

    @property
    def chance_skewness(self) -> float:
        """Skewness that N_k has by chance, where each query has any k vectors near: that of a binomial number."""
        share = self.k / len(self.occurrences)
        return (1 - 2 * share) / float(np.sqrt(self.queries * share * (1 - share)))

    @property
    def unseen(self) -> float:
        """Share of the vectors that no query has near, 0 to 1."""
        return float(np.mean(self.occurrences == 0))

    def top(self, n: int) -> NDArray[np.int64]:
        """Return the rows of the n vectors that occur most often, the first of equal ones first."""
        return np.argsort(-self.occurrences, kind="stable")[:n]
