"""Cross-validation over videos, and the map that gentle adapters start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dits_adapter.adapters._fit import Start
from dits_adapter.adapters.affine import AffineAdapter, fitted_affine
from dits_adapter.adapters.bank import draw
from dits_adapter.adapters.moments import Matches
from dits_adapter.vectors import unit

__all__ = ["FOLDS", "Fold", "Problem", "Residual", "choose_start", "folds", "mean_and_error"]

FOLDS = 5
"""Parts of the videos, each held out once."""

_CROSS_VALIDATED = 1000
"""Texts that judge up to which every part is held out once; of more, one part of about `_HELD_OUT` of them is."""

_HELD_OUT = 1000

_PENALTIES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
_CENTERINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)

_USUAL = Start(penalty=3e-2, centering=0.5, strength=0.0)
"""Start that was as good as any on real pairs (docs/best.md); without strength the penalty means nothing."""

_ROTATION_PENALTIES = (1e-3, 1e-4, 1e-5)

_SHARPNESSES = (10, 15, 20, 30, 40, 60, 80, 120)
"""Factors of the cosines, of which the best is taken: a loss at one of them judges the scale of an encoder's
cosines, too, and falls while the ranking gets worse where they are small."""

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
        groups: group of each video, (m,), numbered in the order of their first videos; folds keep groups together.
        judges: mask of the texts that are chosen by, (n,).
    """

    texts: _Matrix
    videos: _Matrix
    labels: _Rows
    groups: _Rows
    judges: NDArray[np.bool_]

    @classmethod
    def drawn(cls, pairs: Matches, most: int) -> tuple[Problem, _Rows]:
        """Return the problem of at most so many of the pairs, drawn at random, and their rows, ascending.

        Raises:
            InputError: a row that is zero or not finite.
        """
        rows = draw(len(pairs), most, seed=0)
        groups = None if pairs.groups is None else pairs.groups[rows]
        judges = None if pairs.judges is None else pairs.judges[rows]
        return cls.of(pairs.text[rows], pairs.video[rows], groups, judges), rows

    @classmethod
    def of(
        cls,
        text: NDArray[np.floating],
        video: NDArray[np.floating],
        groups: _Rows | None = None,
        judges: NDArray[np.bool_] | None = None,
    ) -> Problem:
        """Normalize texts and their videos, row by row, both (n, d); equal videos become one.

        Args:
            text, video: the vectors.
            groups: group of each text's video, (n,); None, or fewer groups than folds, for each video alone.
            judges: texts to choose by, (n,); None, or texts of fewer groups than folds, for all.

        Raises:
            InputError: a row that is zero or not finite.
        """
        texts, rows = unit(text).astype(np.float64), unit(video).astype(np.float64)
        videos, first, labels = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        numbers: _Rows = np.arange(len(videos))
        if groups is not None:
            _, place, inverse = np.unique(groups[first], return_index=True, return_inverse=True)
            if len(place) >= FOLDS:
                numbers = np.argsort(np.argsort(place))[inverse]
        labels = labels.ravel()
        if judges is None or len(np.unique(numbers[labels[judges]])) < FOLDS:
            judges = np.ones(len(texts), bool)
        return cls(texts, videos, labels, numbers, judges)

    def part(self, rows: NDArray[np.bool_]) -> Problem:
        """Return the pairs of some texts, with all videos."""
        return Problem(self.texts[rows], self.videos, self.labels[rows], self.groups, self.judges[rows])


@dataclass(frozen=True, eq=False)
class Fold:
    """Held-out videos with those of their texts that judge, and the texts of all others.

    Attributes:
        seen: mask of the texts to learn from, (n,).
        held: mask of the held-out texts that judge, (n,).
        candidates: held-out videos, unit, (k, d): those that a held-out text searches. Videos to learn from are
            no candidates: a map that has seen them keeps them out of the way, which flatters an overfitted one.
        answers: row in `candidates` of the video of each held-out text.
    """

    seen: NDArray[np.bool_]
    held: NDArray[np.bool_]
    candidates: _Matrix
    answers: _Rows

    def reciprocal_ranks(self, queries: NDArray[np.floating]) -> _Matrix:
        """Return 1 / rank of the right video among the candidates, (held,), for queries (held, d) of any norm."""
        return _reciprocal_ranks(np.asarray(queries, np.float64) @ self.candidates.T, self.answers)

    def losses(self, queries: NDArray[np.floating]) -> _Matrix:
        """Return the cross-entropy of the right video among the candidates for queries (held, d) of unit norm.

        Returns:
            (sharpnesses, held): for each factor of the cosines in the softmax.
        """
        cosines = queries @ self.candidates.T
        ahead = cosines - cosines[np.arange(len(cosines)), self.answers][:, None]
        return np.array([np.log(np.exp(sharpness * ahead).sum(1)) for sharpness in _SHARPNESSES])


def folds(problem: Problem, seed: int) -> Iterator[Fold]:
    """Part the groups of videos at random; yield each part as held out, of many texts the first alone."""
    count, texts = int(problem.groups.max()) + 1, int(problem.judges.sum())
    few = texts <= _CROSS_VALIDATED
    order = np.random.default_rng(seed).permutation(count)
    judged = problem.groups[problem.labels[problem.judges]]
    order = order[np.argsort(~np.isin(order, judged), kind="stable")]  # as many of them in each fold
    number = np.empty(count, np.int64)
    number[order] = np.arange(count) % (FOLDS if few else max(FOLDS, texts // _HELD_OUT))
    for fold in range(FOLDS if few else 1):
        rows = np.flatnonzero(number[problem.groups] == fold)
        place = np.full(len(problem.videos), -1)
        place[rows] = np.arange(len(rows))
        of_rows = place[problem.labels] >= 0
        held = of_rows & problem.judges
        yield Fold(~of_rows, held, problem.videos[rows], place[problem.labels[held]])


class Residual:
    """Maps from centered texts to what they lack of their centered videos, of any penalty.

    A ridge solves (Xᵀ X + n · penalty · I) W = Xᵀ (Y − X), in the smaller of the spaces of texts and of
    dimensions. A rotation R = I + W minimizes ‖X R − Y‖² + n · penalty · ‖R − I‖² (Procrustes towards the
    identity): it is the orthogonal factor of Xᵀ Y + n · penalty · I.
    """

    def __init__(self, problem: Problem) -> None:
        targets = problem.videos[problem.labels]
        self.mean = problem.texts.mean(0)
        self._texts = problem.texts
        self._centered = problem.texts - self.mean
        self._targets = targets - targets.mean(0)

    def move(self, texts: _Matrix, start: Start) -> _Matrix:
        """Return (texts − mean) W, (n, d)."""
        return self._rotate(texts, start.penalty) if start.rotation else self._regress(texts, start.penalty)

    def _regress(self, texts: _Matrix, penalty: float) -> _Matrix:
        eigenvalues, basis, image = self._ridge
        shrunk = (texts - self.mean) @ basis / (eigenvalues + len(self._texts) * penalty)
        return np.asarray(shrunk @ image)

    @cached_property
    def _ridge(self) -> tuple[_Matrix, _Matrix, _Matrix]:
        """Eigenvalues and basis of the texts, and the image of the basis."""
        centered, lacking = self._centered, self._targets - self._centered
        wide = len(centered) <= centered.shape[1]
        eigenvalues, vectors = np.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
        basis = centered.T @ vectors if wide else vectors
        return eigenvalues, basis, vectors.T @ (lacking if wide else centered.T @ lacking)

    def _rotate(self, texts: _Matrix, penalty: float) -> _Matrix:
        identity = np.eye(len(self.mean))
        left, _, right = np.linalg.svd(self._centered.T @ self._targets + len(self._texts) * penalty * identity)
        return np.asarray((texts - self.mean) @ (left @ right - identity))

    def affine(self, start: Start) -> AffineAdapter:
        """Return the map of a start, scaled so that the norm of an adapted text is 1 in the mean."""
        identity = np.eye(len(self.mean))
        moved = self.move(np.concatenate([identity, np.zeros((1, len(self.mean)))]), start)
        weight = identity + start.strength * (moved[:-1] - moved[-1]).T
        bias = start.strength * moved[-1] - start.centering * self.mean
        scale = np.linalg.norm(self._texts @ weight.T + bias, axis=1).mean()
        return fitted_affine("gentle-linear", weight / scale, bias / scale)


def choose_start(problem: Problem) -> Start:
    """Return the usual start, or the one with the best mean reciprocal rank of held-out texts.

    The usual start takes away half of the mean of the texts, without a map. Another one, plain CLIP included,
    has to be better by two standard errors over the videos: of few pairs the best of 210 is mostly the luckiest.
    Rotations are tried where a ridge is that much better.
    """
    ridges = [Start(*numbers) for numbers in product(_PENALTIES, _CENTERINGS, _STRENGTHS)]
    scores, held = _held_out_ranks(problem, ridges)
    best, usual = int(scores.mean(1).argmax()), ridges.index(_USUAL)
    gain, error = mean_and_error((scores[best] - scores[usual])[held], problem.labels[held])
    if gain <= 2 * error:
        return _USUAL
    rotations = [
        Start(*numbers, rotation=True) for numbers in product(_ROTATION_PENALTIES, (0.0, 0.5, 1.0), (1.0,))
    ]
    rotated, _ = _held_out_ranks(problem, rotations)
    ahead = int(rotated.mean(1).argmax())
    return rotations[ahead] if rotated[ahead].mean() > scores[best].mean() else ridges[best]


def _held_out_ranks(problem: Problem, starts: Sequence[Start]) -> tuple[_Matrix, NDArray[np.bool_]]:
    """Return reciprocal ranks of held-out texts (starts, n), summed over partitions, and which were held out."""
    scores = np.zeros((len(starts), len(problem.texts)))
    held = np.zeros(len(problem.texts), bool)
    for seed in range(_START_ROUNDS):
        for fold in folds(problem, seed):
            residual = Residual(problem.part(fold.seen))
            texts = problem.texts[fold.held]
            held |= fold.held
            plain, offset = texts @ fold.candidates.T, residual.mean @ fold.candidates.T
            for penalty in dict.fromkeys(start.penalty for start in starts):
                rows = [row for row, start in enumerate(starts) if start.penalty == penalty]
                move = residual.move(texts, starts[rows[0]]) @ fold.candidates.T
                for row in rows:  # scores are linear in both numbers; norms rank alike
                    start = starts[row]
                    moved = plain - start.centering * offset + start.strength * move
                    scores[row, fold.held] += _reciprocal_ranks(moved, fold.answers)
    return scores, held


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
