"""Reliability of probabilities, and the logistic regression that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dits_adapter._reprs import shown_repr

__all__ = ["FOLDS", "HITS", "Floats", "Numbers", "Reliability", "logistic"]

HITS = 10
"""Number of best videos of each query that measure a calibration: nearly all other pairs are clear mismatches."""

FOLDS = 5
"""Number of parts that cross-fitting splits the queries into, by video."""

_BINS = 10
"""Number of bins of a reliability diagram, of equal width."""

Floats = npt.NDArray[np.float64]

Numbers = npt.NDArray[np.int64 | np.float64]


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: per bin, mean predicted probability, observed accuracy and count; no empty bins.

    Attributes:
        confidence: mean predicted probability of each bin, (bins,).
        accuracy: share of each bin's pairs that match, (bins,).
        pairs: number of pairs in each bin, or their weight, (bins,).
    """

    confidence: Floats
    accuracy: Floats
    pairs: Floats

    __repr__ = shown_repr

    @classmethod
    def of(cls, probability: Floats, matches: Numbers, pairs: Numbers) -> Reliability:
        """Sort groups of pairs into ten bins of equal width by their predicted probability.

        Args:
            probability: predicted probability of each group, (n,).
            matches: number of each group's pairs that match, or their weight, (n,).
            pairs: number of each group's pairs, likewise, (n,).
        """
        rows = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
        sums = (np.bincount(rows, weights, _BINS) for weights in (probability * pairs, matches, pairs))
        predicted, matching, total = sums
        filled = total > 0
        predicted, matching, total = predicted[filled], matching[filled], total[filled]
        return cls(predicted / total, matching / total, total.astype(np.float64))

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, over all pairs."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.pairs))

    @property
    def total_accuracy(self) -> float:
        """Share of all pairs that match."""
        return float(np.average(self.accuracy, weights=self.pairs))


def logistic(x: Floats, matches: Numbers, others: Numbers) -> tuple[float, float]:
    """Fit slope and offset of the log odds over x, (n,), to the numbers of matches and others there.

    The targets are Platt's, not 0 and 1: (matches + 1) / (matches + 2) and 1 / (others + 2). They keep the slope
    finite where all matches lie higher than all others.
    """
    from sklearn.linear_model import LogisticRegression

    of_match, of_others = (matches.sum() + 1) / (matches.sum() + 2), 1 / (others.sum() + 2)
    yes = matches * of_match + others * of_others
    no = matches * (1 - of_match) + others * (1 - of_others)
    center, spread = np.average(x, weights=matches + others), x.std()
    if spread <= 1e-9 * max(1.0, float(np.abs(x).max())):  # x tells nothing, and the regression has no solution
        return 0.0, float(np.log(yes.sum()) - np.log(no.sum()))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(
        (np.tile(x, 2)[:, None] - center) / spread,
        np.repeat([0, 1], len(x)),
        sample_weight=np.concatenate([no, yes]),
    )
    slope = float(model.coef_[0, 0] / spread)
    return slope, float(model.intercept_[0] - slope * center)
