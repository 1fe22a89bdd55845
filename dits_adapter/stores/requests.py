"""Requests to a store and their hits: neutral, frozen, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dits_adapter._reprs import shown_repr
from dits_adapter._wording import printable
from dits_adapter.errors import InputError
from dits_adapter.stores._words import words_of
from dits_adapter.stores.bias import check_weight
from dits_adapter.stores.metadata import PointLayout, payload_value
from dits_adapter.stores.text_lane import SAID

__all__ = [
    "LANES",
    "SEEN",
    "Hit",
    "LaneRank",
    "ReadRequest",
    "Reranker",
    "SearchOptions",
    "SearchRequest",
    "VideoFilter",
    "check_queries",
    "check_query",
    "from_keywords",
]


T = TypeVar("T")

Reranker = Callable[[Sequence[NDArray[np.floating]]], NDArray[np.floating]]
"""Function from the frame vectors of m segments, each (frames, d), to their scores, (m,)."""


_OURS = PointLayout()

_MOST = 1_000_000_000
"""Greatest limit of a search: twice a page and its offset, as some databases are asked for, are below 2^32."""

SEEN = "seen"
LANES = (SEEN, SAID)
"""Lanes of a search: by what is seen in videos, their vectors, and by what is said in them, their texts."""


@dataclass(frozen=True)
class LaneRank:
    """Place of a video in one lane of a search.

    Attributes:
        rank: rank of the video, from 1.
        score: score of its best segment: in the lane "seen" as `Hit.score`, in "said" its BM25.
    """

    rank: int
    score: float


@dataclass(frozen=True)
class Hit:
    """Hit of a search: a segment that matches the query.

    Attributes:
        id: id of the segment in its store.
        video_id: id of its video; in a foreign collection the value of `PointLayout.video`, or the segment's id.
        path: the video file or its address, if the collection says.
        start, end: the segment, in seconds, likewise.
        score: similarity of query and pooled vector, in the collection's own distance (cosine), less `bias`; where
            `lanes` are fused, a sum over the ranks of its video (`fuse`), which is no similarity.
        timestamp: seconds of the frame that matches best; None without frame vectors.
        payload: everything that the collection keeps about the segment.
        title: title of the video; None in a collection without titles.
        bias: part that the collection's score bias has taken from the score.
        lanes: place of its video in each of the lanes that found it, where more than what is seen was searched.
    """

    id: str | int
    video_id: str
    path: str | None
    start: float | None
    end: float | None
    score: float
    timestamp: float | None
    payload: Mapping[str, Any] = field(repr=False, hash=False)
    title: str | None = None
    bias: float = 0.0
    lanes: Mapping[str, LaneRank] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        id: str | int,
        payload: Mapping[str, Any],
        score: float,
        *,
        video_id: str | int | None = None,
        timestamp: float | None = None,
        layout: PointLayout = _OURS,
        bias: float = 0.0,
    ) -> Hit:
        """Describe a segment by its payload; without a `video_id`, it is a video of its own."""
        title = None if layout.title is None else _text(payload_value(payload, layout.title))
        return cls(
            id=id,
            video_id=str(id if video_id is None else video_id),
            path=_text(payload_value(payload, layout.path)),
            start=_seconds(payload_value(payload, layout.start)),
            end=_seconds(payload_value(payload, layout.end)),
            score=score,
            timestamp=timestamp,
            payload=payload,
            title=title,
            bias=bias,
        )

    @property
    def cosine(self) -> float:
        """Score before the bias, of which alone probabilities are known (`Calibration`)."""
        return self.score + self.bias

    def __str__(self) -> str:
        # A video that was put in as a vector alone has no times: its segment starts and ends at 0.
        timed = self.start is not None and self.end is not None and self.start < self.end
        span = f"  {self.start:.1f}-{self.end:.1f} s" if timed else ""
        best = "" if self.timestamp is None else f" (best at {self.timestamp:.1f} s)"
        lanes = "".join(f"  {lane} {of.rank}" for lane, of in self.lanes.items())
        return f"{self.score:.3f}  {printable(self.title or self.path or self.video_id)}{span}{best}{lanes}"


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _seconds(value: Any) -> float | None:
    return value if isinstance(value, float | int) and not isinstance(value, bool) else None


@dataclass(frozen=True, kw_only=True)
class VideoFilter:
    """Condition on the videos to search, in terms that every store understands.

    Attributes:
        words: words that the path has, all of them, in any order. Case, punctuation and how accents are composed
            do not matter, and a word is met by the whole of it (`words_of`). In a collection of another program
            each, as it is typed, has to be in one of the texts of its layout: as Qdrant's text index cuts these
            into words, or without one anywhere in them, with the same case.
        min_duration, max_duration: bounds on the duration of the whole video, in seconds.
    """

    words: str = ""
    min_duration: float | None = None
    max_duration: float | None = None

    def __bool__(self) -> bool:
        return self != VideoFilter()

    def admits(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a segment with this payload (`path`, `duration`) is of such a video."""
        if not set(words_of(self.words)) <= set(words_of(payload.get("path") or "")):
            return False
        if self.min_duration is None and self.max_duration is None:
            return True
        least, most = self.min_duration or 0.0, math.inf if self.max_duration is None else self.max_duration
        return bool(least <= payload.get("duration", math.nan) <= most)


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """Options of a search, beside the query.

    Attributes:
        limit: number of videos.
        per_video: number of segments of each video.
        offset: number of best videos to leave out, for the next page. A page costs what all before it
            cost.
        filter: condition on the videos to search: a `VideoFilter`, or a filter of the database's own (in Qdrant a
            `models.Filter`).
        min_score: similarity of query and pooled vector that a segment must have, before any bias;
            `Calibration.score_of` gives that of a probability.
        exact: compare the query with every segment instead of following the index.
        rerank: order the best segments anew by their frames. "maxsim": by the frame nearest to the query. A
            function, such as `DITSQueryEncoder.xpool_reranker` returns: by what it makes of their frame vectors,
            a list of (frames, d). The score is theirs then.
        candidates: greatest number of segments to re-rank: the `per_video` best of as many videos as that makes,
            or more of each where there are fewer videos. Videos of fewer segments leave places empty.
        locate: find the moment that matches best (`Hit.timestamp`), for which the hits' frame vectors are read: a
            dozen times what a hit takes otherwise.
        bias: weight w of the collection's score bias (`apply_bias`), 0 to 1: w · b(v) is taken from the score of
            each segment. 0 is without. None is the weight that the collection says; the store cannot see which
            adapter made the query, and one that the bias is not for wants 0 (`ScoreBias.fits`). Where hits are
            re-ranked, the bias has a part in choosing the candidates alone.
        lanes: lanes to search, which are fused by rank where they are several (`fuse`): "seen", the vectors, and
            "said", the texts beside segments (`attach_texts`), by BM25. Each gives its `candidates` best videos.
            `min_score`, `exact` and `bias` are of "seen".
        texts: words to look for in the lane "said", a text for each query.

    Raises:
        InputError: an option outside its range.
    """

    limit: int = 10
    per_video: int = 1
    offset: int = 0
    filter: Any = None
    min_score: float | None = None
    exact: bool = False
    rerank: Literal["maxsim"] | Reranker | None = None
    candidates: int = 100
    locate: bool = True
    bias: float | None = None
    lanes: Sequence[str] = (SEEN,)
    texts: Sequence[str] | None = None

    __repr__ = shown_repr

    def __post_init__(self) -> None:
        for name in ("limit", "per_video", "offset", "candidates"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.limit < 1 or self.per_video < 1 or self.offset < 0:
            raise InputError(
                f"limit is {self.limit}, per_video is {self.per_video} and offset is {self.offset}; the first two "
                "are at least 1, the last at least 0."
            )
        if self.min_score is not None and not (isinstance(self.min_score, Real) and math.isfinite(self.min_score)):
            raise InputError(f"min_score is {self.min_score!r}; it is a number.")
        if not (self.rerank is None or self.rerank == "maxsim" or callable(self.rerank)):
            raise InputError(f'rerank is {self.rerank!r}; it is "maxsim", a function or None.')
        if self.bias is not None:
            check_weight(self.bias)
        _check_lanes(self)
        if self.rerank is not None and self.candidates < (self.offset + self.limit) * self.per_video:
            raise InputError(
                f"candidates is {self.candidates}; to re-rank, it is at least (offset + limit) · per_video."
            )

    @property
    def beyond_seen(self) -> bool:
        """True where more is searched than vectors."""
        return tuple(self.lanes) != (SEEN,)


class SearchOptions(TypedDict, total=False):
    """Fields of `SearchRequest` as keyword arguments of `search` and `search_batch`."""

    limit: int
    per_video: int
    offset: int
    filter: Any
    min_score: float | None
    exact: bool
    rerank: Literal["maxsim"] | Reranker | None
    candidates: int
    locate: bool
    bias: float | None
    lanes: Sequence[str]
    texts: Sequence[str] | None


def _whole(name: str, value: Any) -> int:
    """Return a whole number as Python's own, which databases want it to be.

    Raises:
        InputError: something else, or more than databases count to.
    """
    if not isinstance(value, Integral) or int(value) > _MOST:
        raise InputError(f"{name} is {value!r}; it is a whole number, at most {_MOST:,}.")
    return int(value)


def _check_lanes(request: SearchRequest) -> None:
    lanes = request.lanes
    if isinstance(lanes, str) or not lanes or len(set(lanes)) < len(lanes) or not set(lanes) <= set(LANES):
        raise InputError(f"lanes is {lanes!r}; it is a tuple of one or both of {' and '.join(map(repr, LANES))}.")
    if request.texts is not None and not request.beyond_seen:
        raise InputError('texts are for the lane "said": search it as well, with lanes=("seen", "said").')
    if request.rerank is not None and request.beyond_seen:
        raise InputError('rerank orders by what is seen alone; leave it out, or the lane "said".')


def from_keywords(kind: type[T], whole: T | None, keywords: Mapping[str, Any]) -> T:
    """Return the options of a call that took them either as one object or as keyword arguments.

    Args:
        kind: class of the object, a dataclass.
        whole: the object; None where it was not given.
        keywords: fields of the object.

    Raises:
        InputError: both at once, an unknown option, or one outside its range.
    """
    if whole is None:
        names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        if unknown := keywords.keys() - set(names):
            raise InputError(f"there is no option {min(unknown)!r}; there are {', '.join(names)}.")
        return kind(**keywords)
    if not isinstance(whole, kind):
        raise InputError(f"options come as a {kind.__name__} or as keyword arguments, not as {whole!r}.")
    if keywords:
        raise InputError(f"give {kind.__name__} or options ({', '.join(keywords)}), not both.")
    return whole


def check_query(vector: ArrayLike) -> NDArray[Any]:
    """Return one query vector (d,) as an array (1, d), for `check_queries`.

    Raises:
        InputError: another shape.
    """
    query = np.asarray(vector)
    if query.ndim != 1:
        raise InputError(f"the query vector has shape {query.shape}; one of shape (d,) is needed.")
    return query[None]


def check_queries(vectors: ArrayLike, width: int, request: SearchRequest) -> NDArray[np.float32]:
    """Return query vectors (n, width) as float32.

    Raises:
        InputError: another shape; a vector whose norm is zero or not finite, by its row; or a `rerank` function
            for several queries.
    """
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2:
        raise InputError(f"the query vectors have shape {queries.shape}; (n, {width}) is needed.")
    if queries.shape[1] != width:
        raise InputError(f"the query has {queries.shape[1]} dimensions; the collection's vectors have {width}.")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(queries, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(wrong):
        raise InputError(
            f"query vector {wrong[0]} is zero, holds NaN or infinite values, or is too short or long for float32."
        )
    if callable(request.rerank) and len(queries) != 1:
        raise InputError("a function that re-ranks is for one query; search with each on its own.")
    return queries


@dataclass(frozen=True, kw_only=True)
class ReadRequest:
    """Stored segments to read, chosen by their ids, by the values of a payload field, or the first few.

    Attributes:
        ids: ids of segments (`Hit.id`).
        field: payload field whose values choose segments; with "" the values are ids written as strings.
        values: values of `field`; a whole number is met by itself and by its digits.
        last: of these, the last segment of each whole video alone, whose payload says how many there are
            (`segments`): videos are listed without reading through all of theirs. Only for collections that
            ingestion made.
        limit: greatest number of segments.
        vectors: read the pooled vectors.
        frames: read the frame vectors, where the store has them.

    Raises:
        InputError: ids and a field at once, values without a field, or a limit below 1.
    """

    ids: Sequence[str | int] | None = None
    field: str | None = None
    values: Sequence[str] = ()
    last: bool = False
    limit: int | None = None
    vectors: bool = False
    frames: bool = False

    __repr__ = shown_repr

    def __post_init__(self) -> None:
        if (self.ids is not None and self.field is not None) or (self.values and self.field is None):
            raise InputError("segments to read are chosen by ids, or by the values of a field.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}; it is at least 1.")

    def parts(self, most: int) -> Iterator[ReadRequest]:
        """Divide a request into those of at most this many ids or values each; one with a `limit` stays whole."""
        number = len(self.values if self.ids is None else self.ids)
        if self.limit is not None or number <= most:
            yield self
        elif self.ids is None:
            values = list(dict.fromkeys(self.values))
            yield from (replace(self, values=values[n : n + most]) for n in range(0, len(values), most))
        else:
            ids = list(dict.fromkeys(self.ids))
            yield from (replace(self, ids=ids[n : n + most]) for n in range(0, len(ids), most))

    def chooses(self, id: str | int, payload: Mapping[str, Any]) -> bool:
        """Return whether a segment is chosen; callers keep the `limit`."""
        if self.last and payload.get("segments") is None:
            return False
        if self.ids is not None:
            return id in self.ids
        return self.field is None or str(payload.get(self.field) if self.field else id) in self.values
