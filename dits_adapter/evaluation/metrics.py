"""Retrieval metrics: ranks under a stated tie rule, the metrics that papers report, and their uncertainty.

A score matrix has one row per text and one column per video; `labels[i]` is the column of text i's video.
Several texts may share a video (VATEX, MSVD): each text is a query of its own, and from video to text the best
ranked of a video's captions counts.

>>> scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.8], [0.5, 0.4, 0.6]])
>>> ranks(scores)  # text 1 scores its own video and a wrong one alike: the tie counts against us
array([1., 2., 1.])
>>> RetrievalMetrics.from_ranks(ranks(scores)).mnr
1.3333333333333333
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dits_adapter._reprs import short_repr
from dits_adapter.errors import InputError

__all__ = [
    "METRICS",
    "Difference",
    "DotProducts",
    "Interval",
    "RetrievalMetrics",
    "Scores",
    "Ties",
    "blocks",
    "bootstrap",
    "checked_labels",
    "paired_bootstrap",
    "ranks",
    "video_to_text_ranks",
]

Ties = Literal["pessimistic", "optimistic", "mean"]
"""Place of the right candidate among wrong ones of exactly its score: last, first, or in the middle."""

_Floats = npt.NDArray[np.floating[Any]]

_Ints = npt.NDArray[np.integer[Any]]

_TIE_SHARE: dict[Ties, float] = {"pessimistic": 1.0, "optimistic": 0.0, "mean": 0.5}

_BLOCK_ENTRIES = 2**21
"""Entries of a score or resampling matrix in memory at a time: 16 MB in float64."""


class Scores(Protocol):
    """Score matrix (texts, videos) that is read in blocks of rows: an array, a memory map, or `DotProducts`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (texts, videos)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return a block of rows, an array of numbers."""


class DotProducts:
    """Score matrix `texts @ videos.T`, computed a block of rows at a time and never in memory whole.

    Args:
        texts: (n, d) floats; unit vectors make the scores cosines.
        videos: (m, d) floats.

    Raises:
        InputError: the two are not matrices of one width.

    >>> DotProducts(np.eye(3, 2), np.eye(2))[1:3]
    array([[0., 1.],
           [0., 0.]], dtype=float32)
    """

    def __init__(self, texts: npt.ArrayLike, videos: npt.ArrayLike) -> None:
        self._texts = np.asarray(texts)
        self._videos = np.asarray(videos, dtype=np.float64)
        if self._texts.ndim != 2 or self._videos.ndim != 2 or self._texts.shape[1] != self._videos.shape[1]:
            raise InputError(
                f"texts have shape {self._texts.shape} and videos {self._videos.shape}; "
                "expected (n, d) and (m, d) with the same d"
            )

    def __repr__(self) -> str:
        return short_repr(self, shape=self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, m)."""
        return len(self._texts), len(self._videos)

    def __getitem__(self, rows: slice, /) -> npt.NDArray[np.float32]:
        # Summed in double and rounded to single precision: the order of summation, which depends on the
        # size of the block, drowns in the rounding, so equal vectors tie and blocks do not change a rank.
        block: npt.NDArray[np.float32] = (self._texts[rows].astype(np.float64) @ self._videos.T).astype(np.float32)
        return block


def ranks(scores: Scores, labels: npt.ArrayLike | None = None, *, ties: Ties = "pessimistic") -> _Floats:
    """Return the rank of each text's video among all videos, 1 the best.

    Args:
        scores: (texts, videos) finite numbers, higher is better; read a block of rows at a time.
        labels: (texts,) int, the column of each text's video; by default the diagonal of a square matrix.
        ties: place of wrong videos with exactly the right one's score: all above the right video
            ("pessimistic"), all below ("optimistic"), or half and half ("mean").

    Returns:
        (texts,) float64; whole numbers unless `ties="mean"`.

    Raises:
        InputError: a score is NaN or infinite (its row and column are named), labels do not fit.
    """
    columns = checked_labels(scores, labels)
    share = _tie_share(ties)
    result = np.empty(len(columns))
    for rows, block in blocks(scores):
        right = np.take_along_axis(block, columns[rows, None], axis=1)
        above = np.count_nonzero(block > right, axis=1)
        tied = np.count_nonzero(block == right, axis=1) - 1
        result[rows] = 1 + above + share * tied
    return result


def video_to_text_ranks(
    scores: Scores, labels: npt.ArrayLike | None = None, *, ties: Ties = "pessimistic"
) -> _Floats:
    """Return the rank of each video's best caption among all texts, 1 the best.

    A tie between two captions of one video costs nothing: whichever comes first is right.

    Args:
        scores, labels, ties: as for `ranks`, the same matrix and not its transpose.

    Returns:
        (captioned videos,) float64 in the order of the columns; a video that no text describes is a
        distractor for the texts and no query here.

    Raises:
        InputError: as for `ranks`.
    """
    columns = checked_labels(scores, labels)
    share = _tie_share(ties)
    right = np.empty(len(columns))
    for rows, block in blocks(scores):
        right[rows] = np.take_along_axis(block, columns[rows, None], axis=1)[:, 0]
    best = np.full(scores.shape[1], -np.inf)
    np.maximum.at(best, columns, right)

    above = np.zeros(scores.shape[1], dtype=np.int64)
    tied = -np.bincount(columns[right == best[columns]], minlength=scores.shape[1])  # its own captions
    for _, block in blocks(scores):
        above += np.count_nonzero(block > best, axis=0)
        tied += np.count_nonzero(block == best, axis=0)
    return (1 + above + share * tied)[np.unique(columns)]


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval metrics of a list of ranks, as papers report them.

    Attributes:
        r1, r5, r10: recall at 1, 5 and 10, in percent of the queries.
        mdr: median rank.
        mnr: mean rank.
        mrr: mean reciprocal rank, from 0 to 1.
        n: number of queries.
    """

    r1: float
    r5: float
    r10: float
    mdr: float
    mnr: float
    mrr: float
    n: int

    @classmethod
    def from_ranks(cls, ranks: npt.ArrayLike) -> RetrievalMetrics:
        """Summarize (n,) ranks counted from 1.

        Raises:
            InputError: there are no ranks, or one is below 1.

        >>> RetrievalMetrics.from_ranks([1, 1, 4, 20])
        RetrievalMetrics(r1=50.0, r5=75.0, r10=75.0, mdr=2.5, mnr=6.5, mrr=0.575, n=4)
        """
        ordered = np.sort(_checked_ranks(ranks))
        values = _statistics(ordered, np.ones((1, len(ordered)), dtype=np.int64))[:, 0]
        return cls(**dict(zip(METRICS, values.tolist(), strict=True)), n=len(ordered))


METRICS = tuple(field.name for field in fields(RetrievalMetrics) if field.name != "n")
"""Names of the metrics, in the order in which tables print them."""


class Interval(NamedTuple):
    """Confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """Difference of a metric, second system minus first, with its confidence interval."""

    difference: float
    low: float
    high: float


def bootstrap(
    ranks: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return the percentile bootstrap interval of every metric.

    Args:
        ranks: (queries,) counted from 1.
        groups: (queries,) int; queries of one group are drawn together. Captions of one video are not
            independent: give their labels here. By default every query is its own group.
        n: number of resamples.
        seed: seed of the resampling.
        level: coverage, between 0 and 1.

    Returns:
        One interval per metric, keyed like the fields of `RetrievalMetrics`.

    Raises:
        InputError: bad ranks, or groups of another length.

    >>> bootstrap([1] * 90 + [7] * 10)["r1"]
    Interval(low=84.0, high=95.0)
    """
    values = _checked_ranks(ranks)
    resampled = np.concatenate([_statistics(*pair) for pair in _resamples(values, groups, n, seed)], axis=1)
    return {name: Interval(*row) for name, row in zip(METRICS, _percentiles(resampled, level), strict=True)}


def paired_bootstrap(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Compare two systems on the same queries: `second` minus `first`, every metric.

    Both are resampled with the same draws, so what makes a query hard for both cancels out and the interval
    is narrower than two separate ones suggest. An interval that excludes 0 is a difference at that level.

    Args:
        first, second: (queries,) ranks of the two systems, query by query in one order.
        groups, n, seed, level: as for `bootstrap`.

    Raises:
        InputError: as for `bootstrap`, or the two have different lengths.

    >>> paired_bootstrap([1, 2, 9, 4], [1, 1, 3, 2])["mnr"]
    Difference(difference=-2.25, low=-4.75, high=-0.5)
    """
    a, b = _checked_ranks(first), _checked_ranks(second)
    if len(a) != len(b):
        raise InputError(f"paired ranks must be of the same queries, but there are {len(a)} and {len(b)}")
    draws = zip(_resamples(a, groups, n, seed), _resamples(b, groups, n, seed), strict=True)
    resampled = np.concatenate([_statistics(*draw_b) - _statistics(*draw_a) for draw_a, draw_b in draws], axis=1)
    ones = np.ones((1, len(a)), np.int64)
    observed = (_statistics(np.sort(b), ones) - _statistics(np.sort(a), ones))[:, 0]
    rows = zip(METRICS, observed.tolist(), _percentiles(resampled, level), strict=True)
    return {name: Difference(value, *interval) for name, value, interval in rows}


def _statistics(ordered: _Floats, weights: _Ints) -> _Floats:
    """Return the metrics (6, b), in the order of METRICS, of ascending ranks (n,) taken `weights` (b, n) times."""
    total = weights.sum(axis=1)

    def mean(values: _Floats) -> _Floats:
        quotient: _Floats = weights @ values / total
        return quotient

    reached = weights.cumsum(axis=1)
    lower, upper = (
        ordered[np.count_nonzero(reached <= at[:, None], axis=1)] for at in ((total - 1) // 2, total // 2)
    )
    recalls = [mean(100.0 * (ordered <= k)) for k in (1, 5, 10)]
    return np.stack([*recalls, (lower + upper) / 2, mean(ordered), mean(1 / ordered)])


def _resamples(
    values: _Floats, groups: npt.ArrayLike | None, n: int, seed: int
) -> Iterator[tuple[_Floats, _Ints]]:
    """Yield the ascending ranks and the draws of each rank in each resample, a block of resamples at a time."""
    members = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if members.shape != values.shape:
        raise InputError(f"groups must give one number per rank: {values.shape} ranks, {members.shape} groups")
    order = np.argsort(values, kind="stable")
    ordered, members = values[order], members[order]
    n_groups = int(members.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ENTRIES // len(values))
    for start in range(0, n, block):
        draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=min(block, n - start))
        yield ordered, draws[:, members]


def _percentiles(resampled: _Floats, level: float) -> list[list[float]]:
    """Return the central `level` of each row of (metrics, resamples), as [low, high]."""
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, for example 0.95, not {level}")
    tail = 50 * (1 - level)
    bounds: list[list[float]] = np.percentile(resampled, [tail, 100 - tail], axis=1).T.tolist()
    return bounds


def blocks(scores: Scores) -> Iterator[tuple[slice, _Floats]]:
    """Yield the rows of a matrix in blocks of bounded size, each checked to be finite.

    Raises:
        InputError: something else than numbers, or a score that is NaN or infinite, naming its row and column.
    """
    n_texts, n_videos = scores.shape
    step = max(1, _BLOCK_ENTRIES // n_videos)
    for start in range(0, n_texts, step):
        rows = slice(start, min(start + step, n_texts))
        block = np.asarray(scores[rows])
        if block.dtype.kind not in "fiu":
            raise InputError(f"scores must be real numbers, not {block.dtype}")
        if not np.isfinite(block).all():
            row, column = np.argwhere(~np.isfinite(block))[0]
            raise InputError(
                f"the score in row {start + row}, column {column} is {block[row, column]}; "
                "every score must be finite"
            )
        yield rows, block


def checked_labels(scores: Scores, labels: npt.ArrayLike | None) -> _Ints:
    """Return the column of each row's right candidate, (texts,), after checking the matrix and the labels.

    Raises:
        InputError: no matrix, labels that do not fit it, or none for a matrix that is not square.
    """
    if len(scores.shape) != 2 or 0 in scores.shape:
        raise InputError(f"scores must be a matrix (texts, videos) with entries, not of shape {scores.shape}")
    n_texts, n_videos = scores.shape
    if labels is None:
        if n_texts != n_videos:
            raise InputError(
                f"{n_texts} texts against {n_videos} videos: without labels the matrix must be square, column i "
                "the video of text i; of another one give the column of each text's video as labels"
            )
        return np.arange(n_texts)
    columns = np.asarray(labels)
    if columns.shape != (n_texts,) or columns.dtype.kind not in "iu":
        raise InputError(
            f"labels must be {n_texts} integers, one per text, not {columns.dtype} of shape {columns.shape}"
        )
    outside = np.flatnonzero((columns < 0) | (columns >= n_videos))
    if len(outside):
        raise InputError(
            f"label {columns[outside[0]]} of text {outside[0]} is no column: there are {n_videos} videos, "
            "counted from 0"
        )
    return columns.astype(np.int64)


def _checked_ranks(ranks: npt.ArrayLike) -> _Floats:
    """Return ranks as float64 after checking them."""
    values = np.asarray(ranks, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"ranks must be a non-empty list of numbers, not of shape {values.shape}")
    wrong = np.flatnonzero(~(values >= 1) | np.isinf(values))
    if len(wrong):
        raise InputError(f"rank {values[wrong[0]]} of query {wrong[0]} is none: ranks count from 1")
    return values


def _tie_share(ties: Ties) -> float:
    """Return the share of the tied wrong candidates that stand above the right one."""
    if ties not in _TIE_SHARE:
        raise InputError(f"ties must be one of {', '.join(_TIE_SHARE)}, not {ties!r}")
    return _TIE_SHARE[ties]
