"""Cross-validation over videos, and the ridge that gentle adapters start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dits_adapter.adapters._fit import Start
from dits_adapter.adapters.affine import AffineAdapter, fitted_affine
from dits_adapter.vectors import unit

__all__ = ["FOLDS", "Fold", "Problem", "Ridge", "choose_start", "folds", "mean_and_error"]

FOLDS = 5
"""Parts of the videos, each held out once."""

_CROSS_VALIDATED = 5000
"""Texts up to which every part is held out once; of more, one part of about `_HELD_OUT` texts is."""

_HELD_OUT = 1000

_PENALTIES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
_CENTERINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)

_USUAL = Start(penalty=3e-2, centering=0.5, strength=0.0)
"""Start that was as good as any on real pairs (docs/best.md); without strength the penalty means nothing."""

_START_ROUNDS = 4
"""Partitions of the videos that the start is chosen by."""

_Matrix = NDArray[np.float64]
_Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Pairs to learn from.

    Attributes:
        texts: unit texts, (n, d).
        videos: distinct unit videos, (m, d).
        labels: row of each text's video, (n,).
    """

    texts: _Matrix
    videos: _Matrix
    labels: _Rows

    @classmethod
    def of(cls, text: NDArray[np.floating], video: NDArray[np.floating]) -> Problem:
        """Normalize texts and their videos, row by row, both (n, d); equal videos become one.

        Raises:
            InputError: a row that is zero or not finite.
        """
        texts, rows = unit(text).astype(np.float64), unit(video).astype(np.float64)
        videos, labels = np.unique(rows, axis=0, return_inverse=True)
        return cls(texts, videos, labels.ravel())

    def part(self, rows: NDArray[np.bool_]) -> Problem:
        """Return the pairs of some texts, with all videos."""
        return Problem(self.texts[rows], self.videos, self.labels[rows])


@dataclass(frozen=True, eq=False)
class Fold:
    """Held-out videos with their texts, and the texts of all others.

    Attributes:
        seen: mask of the texts to learn from, (n,).
        held: mask of the texts that are held out, (n,).
        candidates: held-out videos, unit, (k, d): those that a held-out text searches. Videos to learn from are
            no candidates: a map that has seen them keeps them out of the way, which flatters an overfitted one.
        answers: row in `candidates` of the video of each held-out text.
    """

    seen: NDArray[np.bool_]
    held: NDArray[np.bool_]
    candidates: _Matrix
    answers: _Rows

    def reciprocal_ranks(self, queries: _Matrix) -> _Matrix:
        """Return 1 / rank of the right video among the candidates, (held,), for queries (held, d) of any norm."""
        return _reciprocal_ranks(queries @ self.candidates.T, self.answers)


def folds(problem: Problem, seed: int) -> Iterator[Fold]:
    """Part the videos at random; yield each part as held out, or the first alone where texts are many."""
    count, texts = len(problem.videos), len(problem.texts)
    few = texts <= _CROSS_VALIDATED
    number = np.empty(count, np.int64)
    number[np.random.default_rng(seed).permutation(count)] = np.arange(count) % (
        FOLDS if few else max(FOLDS, texts // _HELD_OUT)
    )
    for fold in range(FOLDS if few else 1):
        rows = np.flatnonzero(number == fold)
        place = np.full(count, -1)
        place[rows] = np.arange(len(rows))
        held = place[problem.labels] >= 0
        yield Fold(~held, held, problem.videos[rows], place[problem.labels[held]])


class Ridge:
    """Least squares from centered texts to what they lack of their centered videos, for any penalty.

    W solves (Xᵀ X + n · penalty · I) W = Xᵀ (Y − X), in the smaller of the spaces of texts and of dimensions.
    """

    def __init__(self, problem: Problem) -> None:
        targets = problem.videos[problem.labels]
        self.mean = problem.texts.mean(0)
        self._count = len(problem.texts)
        self._texts = problem.texts
        centered = problem.texts - self.mean
        lacking = targets - targets.mean(0) - centered
        wide = len(centered) <= centered.shape[1]
        self._eigenvalues, vectors = np.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
        self._basis = centered.T @ vectors if wide else vectors
        self._image = vectors.T @ (lacking if wide else centered.T @ lacking)

    def move(self, texts: _Matrix, penalty: float) -> _Matrix:
        """Return (texts − mean) W, (n, d)."""
        shrunk = (texts - self.mean) @ self._basis / (self._eigenvalues + self._count * penalty)
        return np.asarray(shrunk @ self._image)

    def affine(self, start: Start) -> AffineAdapter:
        """Return the map of a start, scaled so that the norm of an adapted text is 1 in the mean."""
        identity = np.eye(len(self.mean))
        moved = self.move(np.concatenate([identity, np.zeros((1, len(self.mean)))]), start.penalty)
        weight = identity + start.strength * (moved[:-1] - moved[-1]).T
        bias = start.strength * moved[-1] - start.centering * self.mean
        scale = np.linalg.norm(self._texts @ weight.T + bias, axis=1).mean()
        return fitted_affine("gentle-linear", weight / scale, bias / scale)


def choose_start(problem: Problem) -> Start:
    """Return the usual start, or the one with the best mean reciprocal rank of held-out texts.

    The usual start takes away half of the mean of the texts, without a ridge. Another one, plain CLIP included,
    has to be better by two standard errors over the videos: of few pairs the best of 210 is mostly the luckiest.
    """
    starts = [Start(*numbers) for numbers in product(_PENALTIES, _CENTERINGS, _STRENGTHS)]
    scores = np.zeros((len(starts), len(problem.texts)))
    held = np.zeros(len(problem.texts), bool)
    for seed in range(_START_ROUNDS):
        for fold in folds(problem, seed):
            ridge = Ridge(problem.part(fold.seen))
            texts = problem.texts[fold.held]
            held |= fold.held
            plain, offset = texts @ fold.candidates.T, ridge.mean @ fold.candidates.T
            for penalty in _PENALTIES:
                move = ridge.move(texts, penalty) @ fold.candidates.T
                for row, start in enumerate(starts):
                    if start.penalty == penalty:  # scores are linear in both numbers; norms rank alike
                        moved = plain - start.centering * offset + start.strength * move
                        scores[row, fold.held] += _reciprocal_ranks(moved, fold.answers)
    means = scores.mean(1)
    best, usual = int(means.argmax()), starts.index(_USUAL)
    gain, error = mean_and_error((scores[best] - scores[usual])[held], problem.labels[held])
    return starts[best if gain > 2 * error else usual]


def mean_and_error(gains: _Matrix, labels: _Rows) -> tuple[float, float]:
    """Return the mean over texts (n,), and its standard error where texts of one video (n,) go together."""
    _, groups = np.unique(labels, return_inverse=True)
    mean = gains.mean()
    of_videos = np.bincount(groups, gains - mean)
    count = len(of_videos)
    return float(mean), float(np.sqrt(np.sum(of_videos**2) * count / (count - 1)) / len(gains))


def _reciprocal_ranks(scores: _Matrix, answers: _Rows) -> _Matrix:
    """Return 1 / rank of the right column of each row (n, m), ties counted against it."""
    right = scores[np.arange(len(scores)), answers]
    return 1 / np.sum(scores >= right[:, None], axis=1)
