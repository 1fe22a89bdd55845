"""Calibrated probabilities that any hit of a query is right.

A query that no video fits gets hits too. A logistic regression on the log odds of the best hit gives the
probability that any of the `HITS` best hits is right. It is fitted on each held-out query twice, with its video
and without it in the collection, or on queries that are known to have none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dits_adapter.evaluation.metrics import Scores, blocks
from dits_adapter.evaluation.reliability import FOLDS, HITS, Floats, Reliability, logistic

__all__ = ["Answerability", "Answers", "answer_figures"]


class Answerability(BaseModel):
    """Map of the best hit's log odds to those that any of the `HITS` best hits is right.

    Half of the queries of the fit have no video in the collection (`Calibration.probability_of_any` has the
    share). The figures are of fits without the query and all other texts of its video.

    Attributes:
        slope: slope over the log odds of the best hit; 0 where the best score tells nothing.
        offset: log odds where the best hit has even odds.
        auroc: chance that a query with a right hit gets a higher probability than one without, 0 to 1; 0.5
            where no query has one.
        brier: mean squared distance of probability and truth (0 or 1).
        ece: expected calibration error: mean distance of predicted probability and observed share, in ten bins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = Field(ge=0, allow_inf_nan=False)
    offset: float = Field(allow_inf_nan=False)
    auroc: float = Field(ge=0, le=1)
    brier: float = Field(ge=0, le=1)
    ece: float = Field(ge=0, le=1)


class Answers:
    """Best scores of queries with a video in the collection and without, and their regression.

    Args:
        folds: fold of each query, (n,).
    """

    def __init__(self, folds: npt.NDArray[np.int64]) -> None:
        self._folds, self._folds_without = folds, folds
        self._best, self._best_without = np.zeros(len(folds)), np.zeros(len(folds))
        self._found = np.zeros(len(folds), dtype=bool)

    def add(self, rows: slice, scores: npt.NDArray[np.floating], match: npt.NDArray[np.bool_]) -> None:
        """Add queries by their scores (rows, videos), with their video and with it left out."""
        right = scores[match]
        others = np.where(match, -np.inf, scores)
        self._found[rows] = (others > right[:, None]).sum(axis=1) < HITS
        self._best_without[rows] = others.max(axis=1)
        self._best[rows] = np.maximum(right, self._best_without[rows])

    def replace_unanswerable(self, scores: Scores, rng: np.random.Generator) -> None:
        """Replace the queries whose video was left out by queries that have none."""
        self._best_without = np.concatenate([block.max(axis=1) for _, block in blocks(scores)])
        self._folds_without = rng.permutation(len(self._best_without)) % FOLDS

    def fit(self, whole: tuple[float, float], of_folds: list[tuple[float, float]]) -> Answerability:
        """Fit the regression on log odds by the fit of all pairs, and judge it by those without a fold."""
        best = np.concatenate([self._best, self._best_without])
        right = np.concatenate([self._found, np.zeros(len(self._best_without), dtype=bool)])
        folds = np.concatenate([self._folds, self._folds_without])
        weight = np.ones(len(best))
        weight[len(self._best) :] = len(self._best) / len(self._best_without)  # half of all

        def regression(fit: tuple[float, float], rows: npt.NDArray[np.bool_]) -> tuple[float, float]:
            slope, offset = fit
            matches, others = (weight[rows] * (right[rows] == kind) for kind in (True, False))
            scale, shift = logistic(slope * best[rows] + offset, matches, others)
            if scale > 0:
                return scale, shift
            return 0.0, float(np.log(matches.sum() + 1) - np.log(others.sum() + 1))

        predicted = np.empty(len(best))
        for fold, (slope, offset) in enumerate(of_folds):
            rows = folds == fold
            scale, shift = regression((slope, offset), ~rows)
            predicted[rows] = np.exp(-np.logaddexp(0, -(scale * (slope * best[rows] + offset) + shift)))
        scale, shift = regression(whole, np.ones(len(best), dtype=bool))
        return Answerability(slope=scale, offset=shift, **answer_figures(predicted, right, weight))


def answer_figures(
    probability: Floats, right: npt.NDArray[np.bool_], weight: Floats | None = None
) -> dict[str, float]:
    """Measure probabilities that any hit is right.

    Args:
        probability: predicted probabilities, (n,).
        right: True where any hit is right, (n,).
        weight: weight of each query, (n,); None for one each.

    Returns:
        The figures of `Answerability` by name.
    """
    from sklearn.metrics import roc_auc_score

    weight = np.ones(len(probability)) if weight is None else weight
    both = 0 < np.count_nonzero(right) < len(right)  # else there is nothing to tell apart
    return {
        "auroc": float(roc_auc_score(right, probability, sample_weight=weight)) if both else 0.5,
        "brier": float(np.average((probability - right) ** 2, weights=weight)),
        "ece": Reliability.of(probability, weight * right, weight).ece,
    }
