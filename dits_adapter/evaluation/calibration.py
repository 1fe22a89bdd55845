"""Calibrated probabilities that a video is the right one, from its cosine with the query.

A logistic regression of match or no match on the cosine (Platt, 1999), fitted on all pairs of held-out queries and
videos at the rate at which they occur, so that it is right where hits are. A query has about one right video,
however many there are: the odds fall as the collection grows. Among N videos instead of the m of the fit,

    log odds = slope · cosine + offset − log((N − 1) / (m − 1)).

The log odds rise with the cosine: a least probability is a least cosine, which the vector store applies.

The probability that any hit is right has a regression of its own (`Answerability`).

Scores that a score bias was taken from (`ScoreBias`) are others than cosines, and need a calibration of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dits_adapter._wording import counted
from dits_adapter.errors import InputError
from dits_adapter.evaluation.answerability import Answerability, Answers
from dits_adapter.evaluation.metrics import Scores, blocks, checked_labels
from dits_adapter.evaluation.reliability import FOLDS, HITS, Reliability, logistic

__all__ = ["BiasedCalibration", "Calibration", "CalibrationFit", "fit_calibration"]

_MIN_VIDEOS = 20
"""Least number of videos with a text: fewer fix the offset no better than to about ± 0.5 in log odds."""

_GRID = 2**16
"""Steps of the cosine, from −1 to 1, by which pairs are counted: log odds move by less than 0.01."""

_Floats = npt.NDArray[np.float64]

_Counts = npt.NDArray[np.int64]


class Calibration(BaseModel):
    """Map of cosines to probabilities, and back.

    The probability is that of the video which the query was written for, among the others of a collection that
    holds it. Where only a share of the queries has its video in the collection, pass `videos=N / share`: the odds
    become that share. A text that fits many videos equally well, "a ball", gives each of them a small probability.

    Of several segments of a video, the probability belongs to the best one. Many segments have many chances to
    score high, so where videos are cut into many segments the probability is somewhat too high.

    Attributes:
        slope: slope of the log odds over the cosine, positive.
        offset: log odds at cosine 0 in the collection of the fit.
        videos: m, number of videos that each query of the fit was compared with.
        queries: number of texts of the fit.
        log_loss: log loss of the `HITS` best videos of each query, in nats, under fits without the query and
            all other texts of its video.
        ece: expected calibration error of the same videos: mean distance of predicted probability and observed
            accuracy, in ten bins of equal width.
        answer: probability that any hit is right.
        biased: calibration of the scores of a collection with a score bias, less that bias.

    Examples:
        >>> answer = Answerability(slope=0.7, offset=0.9, auroc=0.8, brier=0.18, ece=0.03)
        >>> facts = dict(videos=150, queries=750, log_loss=0.2, ece=0.01)
        >>> calibration = Calibration(slope=16, offset=-10, answer=answer, **facts)
        >>> round(calibration.probability(0.75, videos=300), 2)
        0.79
        >>> round(calibration.score_of(0.79, videos=300), 2)
        0.75
        >>> round(calibration.probability_of_any(0.5, videos=300), 2)
        0.27
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = Field(gt=0, allow_inf_nan=False)
    offset: float = Field(allow_inf_nan=False)
    videos: int = Field(ge=2)
    queries: int = Field(ge=1)
    log_loss: float = Field(ge=0, allow_inf_nan=False)
    ece: float = Field(ge=0, le=1)
    answer: Answerability
    biased: BiasedCalibration | None = None

    def less(self, bank: str, weight: float) -> Calibration | None:
        """Return the calibration of scores less the score bias of a bank; None where it was not fitted.

        Args:
            bank: digest of the bank (`ScoreBias.bank`).
            weight: part w of the bias that was taken from the scores; at 0 they are cosines.
        """
        if not weight:
            return self
        if self.biased is None or (self.biased.bank, self.biased.weight) != (bank, weight):
            return None
        return self.biased.calibration

    @overload
    def probability(self, score: float, *, videos: float) -> float: ...
    @overload
    def probability(self, score: _Floats, *, videos: float) -> _Floats: ...

    def probability(self, score: float | _Floats, *, videos: float) -> float | _Floats:
        """Return the probability, 0 to 1, that a video of this cosine is the right one.

        Args:
            score: cosine of an adapted query and a video, or an array of them.
            videos: N, number of videos in the collection. Fewer than two count as two: the only video is not
                certain to be the right one.
        """
        probability: _Floats = np.exp(-np.logaddexp(0, -self._log_odds(score, videos)))
        return float(probability) if np.ndim(score) == 0 else probability

    def probability_of_any(self, best: float, *, videos: float, share: float = 0.5) -> float:
        """Return the probability, 0 to 1, that any of a query's `HITS` best hits is the right video.

        In collections some times larger than that of the fit it holds about; see docs/calibration.md for figures.

        Args:
            best: score of the best hit of the whole collection.
            videos: N, number of videos in the collection.
            share: share of all queries that have their video in the collection.

        Raises:
            InputError: a share that is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"the share of queries that have their video is {share:g}; it lies between 0 and 1.")
        prior = np.log(share) - np.log1p(-share)
        log_odds = self.answer.slope * self._log_odds(best, videos) + self.answer.offset + prior
        return float(np.exp(-np.logaddexp(0, -log_odds)))

    def score_of(self, probability: float, *, videos: float) -> float:
        """Return the cosine of a probability in a collection of N videos; the cosine may lie above 1.

        Raises:
            InputError: a probability that is not between 0 and 1.
        """
        if not 0 < probability < 1:
            raise InputError(f"a probability of {probability:g} has no score; it lies between 0 and 1.")
        log_odds = float(np.log(probability) - np.log1p(-probability))
        return (log_odds - self.offset + self._shift(videos)) / self.slope

    @overload
    def _log_odds(self, score: float, videos: float) -> float: ...
    @overload
    def _log_odds(self, score: _Floats, videos: float) -> _Floats: ...

    def _log_odds(self, score: float | _Floats, videos: float) -> float | _Floats:
        return self.slope * score + self.offset - self._shift(videos)

    def _shift(self, videos: float) -> float:
        """Return the decrease of the log odds where one of N videos is right instead of one of m."""
        return float(np.log((max(videos, 2) - 1) / (self.videos - 1)))

    def __str__(self) -> str:
        return (
            f"log odds {self.slope:.4g} · cosine {self.offset:+.4g} among {self.videos:,} videos, fitted on "
            f"{self.queries:,} queries; held out, the {HITS} best hits of each have log loss {self.log_loss:.4f} "
            f"and expected calibration error {self.ece:.4f}; that any of them is right, where half of the queries "
            f"have no video: AUROC {self.answer.auroc:.3f}, expected calibration error {self.answer.ece:.4f}"
        )


class BiasedCalibration(BaseModel):
    """Calibration of scores that a score bias was taken from.

    Attributes:
        bank: digest of the bank (`BiasBank.digest`).
        weight: part w of the bias that was taken from the scores.
        calibration: map of cosine − w · b(v) to probabilities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bank: str
    weight: float = Field(gt=0, le=1)
    calibration: Calibration


@dataclass(frozen=True)
class CalibrationFit:
    """Calibration, and its reliability on pairs that were held out from the fit.

    Attributes:
        calibration: calibration fitted on all pairs.
        hits: reliability on the `HITS` best videos of each query.
        best: reliability on the best video alone. The best video is right more often than its probability says,
            because no other video of the collection scored higher, and the hits below it are right less often.
    """

    calibration: Calibration
    hits: Reliability
    best: Reliability


def fit_calibration(
    scores: Scores, labels: npt.ArrayLike | None = None, *, unanswerable: Scores | None = None, seed: int = 0
) -> CalibrationFit:
    """Fit a calibration on the scores of held-out queries and videos, read once, a block at a time.

    The quality is measured by cross-fitting: the queries are split by video into `FOLDS` folds, and each fold is
    scored by a fit on the queries of the others. All queries are compared with all videos.

    Args:
        scores: cosines (texts, videos) of adapted queries that the adapter was not trained on; less the bias, for
            a collection with a score bias.
        labels: as for `dits_adapter.evaluation.metrics.ranks`.
        unanswerable: scores (queries, videos) of queries that none of the videos fits. None for the texts
            themselves, each with its video left out.
        seed: seed of the folds.

    Raises:
        InputError: fewer than 20 videos with a text, scores that are no cosines, matching pairs that do not score
            higher than others, or scores or labels that do not fit; see `ranks`.
    """
    columns = checked_labels(scores, labels)
    described = np.unique(columns)
    if len(described) < _MIN_VIDEOS:
        raise InputError(
            f"{counted(len(described), 'held-out video is', 'held-out videos are')} too few to calibrate "
            f"probabilities on; it takes {_MIN_VIDEOS}. "
            "Hold out more (of a training's pairs with --set validation=SHARE), or fit them on other pairs: "
            "dits-adapter calibrate CACHE ADAPTER"
        )
    rng = np.random.default_rng(seed)
    fold_of = np.zeros(scores.shape[1], np.int64)
    fold_of[rng.permutation(described)] = np.arange(len(described)) % FOLDS
    everything, hits, best = (np.zeros((FOLDS, 2, _GRID + 1), np.int64) for _ in range(3))
    answers = Answers(fold_of[columns])
    for rows, block in blocks(scores):
        if np.abs(block).max() > 1.001:
            raise InputError(f"a score is {block.flat[np.abs(block).argmax()]:g}; cosines lie between -1 and 1.")
        folds = fold_of[columns[rows], None]
        match = columns[rows, None] == np.arange(block.shape[1])
        _count(everything, folds, match, block)
        for table, number in ((hits, HITS), (best, 1)):
            chosen = np.argpartition(-block, number - 1, axis=1)[:, :number]
            _count(table, folds, np.take_along_axis(match, chosen, 1), np.take_along_axis(block, chosen, 1))
        answers.add(rows, block, match)
    if unanswerable is not None:
        answers.replace_unanswerable(unanswerable, rng)
    total = everything.sum(axis=0)
    fits = [_platt(total - fold) for fold in everything]
    predicted = np.stack([_probabilities(fit) for fit in fits])
    judged = hits.sum(axis=1) > 0
    losses = -np.where(judged, hits[:, 1] * np.log(predicted) + hits[:, 0] * np.log1p(-predicted), 0)
    reliability, reliability_of_best = (
        Reliability.of(predicted.ravel(), table[:, 1].ravel(), table.sum(axis=1).ravel()) for table in (hits, best)
    )
    slope, offset = _platt(total)
    if not slope > 1e-9:  # less is rounding
        raise InputError(
            "held-out matching pairs do not score higher than others: the adapter has learned nothing that a "
            "probability could be made of. Train it on more pairs, or use plain CLIP."
        )
    calibration = Calibration(
        slope=slope,
        offset=offset,
        videos=scores.shape[1],
        queries=len(columns),
        log_loss=float(losses.sum() / hits.sum()),
        ece=reliability.ece,
        answer=answers.fit((slope, offset), fits),
    )
    return CalibrationFit(calibration, reliability, reliability_of_best)


def _count(table: _Counts, folds: _Counts, match: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> None:
    """Add pairs to a table (folds, no match or match, cosine on the grid)."""
    cells = np.rint((np.clip(scores.astype(np.float64), -1, 1) + 1) * (_GRID / 2)).astype(np.int64)
    places = (folds * 2 + match) * (_GRID + 1) + cells
    table += np.bincount(places.ravel(), minlength=table.size).reshape(table.shape)


def _cosines() -> _Floats:
    """Return the cosines of the grid."""
    return np.linspace(-1, 1, _GRID + 1, dtype=np.float64)


def _probabilities(fitted: tuple[float, float]) -> _Floats:
    """Return a fit's probability of each cosine of the grid, short of 0 and 1, which have no logarithm."""
    slope, offset = fitted
    limits = np.finfo(np.float64)
    probability: _Floats = np.exp(-np.logaddexp(0, -(slope * _cosines() + offset)))
    np.clip(probability, limits.tiny, 1 - limits.epsneg, out=probability)
    return probability


def _platt(counts: _Counts) -> tuple[float, float]:
    """Fit slope and offset of the log odds to counts (no match or match, cosine on the grid)."""
    occupied = np.flatnonzero(counts.sum(axis=0))
    others, matches = counts[:, occupied]
    return logistic(_cosines()[occupied], matches, others)
