"""Video stores: the base class of every vector database, and the neutral records that travel to and from it.

A store keeps segments of videos with their vectors, says which embedding space these are of, and finds the
segments nearest to a query, grouped by video. `VideoStore` lists what a database has to do; `stores/memory.py`
does it in the fewest lines. What only some databases can do is a flag of `Capabilities`: callers ask the flag,
never the type.
"""

from __future__ import annotations

import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from typing_extensions import Self, Unpack

from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from dits_adapter.video.encoder import EncodedSegment

__all__ = [
    "Capabilities",
    "CollectionMetadata",
    "FailureRow",
    "Hit",
    "ReadRequest",
    "Reranker",
    "SearchOptions",
    "SearchRequest",
    "SegmentRow",
    "StoredSegment",
    "VideoFile",
    "VideoFilter",
    "VideoRecord",
    "VideoStore",
    "check_queries",
    "check_query",
    "check_tenant",
    "failure_id",
    "from_keywords",
    "segment_id",
    "video_id_of",
    "video_records",
]

T = TypeVar("T")

Reranker = Callable[[Sequence[NDArray[np.floating]]], NDArray[np.floating]]
"""Function from the frame vectors of m segments, each (frames, d), to their scores, (m,)."""

_NAMESPACE = uuid.UUID("5d0f6c52-6f0e-5f0c-9d3c-1f7c0b7a4e21")


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Abilities of a store beyond those that all stores have.

    Attributes:
        remote: a server holds it: writes overlap with decoding.
        frames: it keeps frame vectors: hits are located to the second (`Hit.timestamp`) and can be re-ranked.
        tenants: it keeps the videos of several tenants apart.
        aliases: a name can be switched from one collection to another.
        index: searches follow an approximate index, which `VideoStore.finish` completes; otherwise they are exact.
        options: a new collection takes options (`VideoStore.create`).
    """

    remote: bool = False
    frames: bool = False
    tenants: bool = False
    aliases: bool = False
    index: bool = False
    options: bool = False


class CollectionMetadata(BaseModel):
    """Description that a collection carries of how its vectors were made.

    Attributes:
        format: version of this layout.
        space: the embedding space of the vectors.
        segment_seconds: length of a segment, in seconds; None for one segment a video.
        overlap: seconds that neighboring segments share.
        tenants: whether the collection keeps tenants apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    space: EmbeddingSpace
    segment_seconds: float | None = None
    overlap: float = 0.0
    tenants: bool = False

    def require_possible(self) -> None:
        """Refuse segments that cannot be cut.

        Raises:
            InputError: segments without a length, or an overlap that is not shorter than they are.
        """
        seconds, overlap = self.segment_seconds, self.overlap
        whole = seconds is None and overlap == 0
        if not whole and (seconds is None or not 0 <= overlap < seconds < math.inf):
            raise InputError(
                f"segment_seconds is {seconds} and overlap is {overlap}; segments have a length, and overlap by "
                "less than it."
            )

    def require_same(
        self, existing: CollectionMetadata | None, collection: str, tenant: str | None = None
    ) -> None:
        """Refuse to store videos described by this metadata in a collection described by another.

        Args:
            existing: the metadata of the collection; None where the collection has none.
            collection: its name, for the message.
            tenant: whose videos they are, likewise.

        Raises:
            SpaceMismatchError: the collection is of another embedding space.
            StoreError: the collection is foreign, cut in other segments, or keeps tenants otherwise.
        """
        if existing is None:
            raise StoreError(
                f"the collection {collection!r} was made by something else than dits_adapter; ingest into a "
                "collection of its own, under another name."
            )
        self.space.require(existing.space, mine="the video encoder", theirs=f"the collection {collection!r}")
        if (existing.segment_seconds, existing.overlap) != (self.segment_seconds, self.overlap):
            raise StoreError(
                f"the collection {collection!r} holds {existing.segments_in_words}, and this asks for "
                f"{self.segments_in_words}. Ask for the same, or ingest into another collection."
            )
        if existing.tenants != self.tenants:
            raise StoreError(
                f"the collection {collection!r} "
                + (
                    "keeps tenants apart: say whose videos these are."
                    if existing.tenants
                    else f"does not keep tenants apart; for {tenant!r}, ingest into a new one."
                )
            )

    @property
    def segments_in_words(self) -> str:
        """How videos are cut, for messages."""
        if self.segment_seconds is None:
            return "whole videos"
        return f"segments of {self.segment_seconds:g} s overlapping by {self.overlap:g} s"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file on disk, and the identity of its content.

    Attributes:
        path: absolute.
        size: in bytes.
        mtime_ns: modification time, in nanoseconds.
        video_id: UUID made from the content (`video_id_of`); empty where the content was not read.
    """

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""


@dataclass(slots=True)
class VideoRecord:
    """State of one video in a collection, or of one file that could not be read.

    Attributes:
        path, size, mtime_ns: of the file when it was read.
        video_id: of its content; empty for a failure.
        failure: the reason why a file gave no frames; empty for a video.
        found: segments that are stored.
        expected: segments that the video has; -1 while its last one is missing.
    """

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""
    failure: str = ""
    found: int = 0
    expected: int = -1

    @property
    def complete(self) -> bool:
        """True if all segments of the video are stored."""
        return self.found == self.expected

    def is_of(self, file: VideoFile) -> bool:
        """Return whether the record is of `file`, by its name, size and modification time."""
        return (self.path, self.size, self.mtime_ns) == (file.path, file.size, file.mtime_ns)


@dataclass(frozen=True, eq=False)
class SegmentRow:
    """One segment of a video as ingestion produces it and any store can keep it.

    Times are rounded to microseconds, so that they and the id come out the same from every run.

    Attributes:
        id: UUID made from content, span and tenant: storing a segment twice is storing it once.
        video_id: UUID made from the file's content: a renamed file keeps its id.
        path: absolute path of the file.
        start, end: the segment, in seconds from the first frame.
        timestamps: of the frames, in seconds.
        duration, fps: of the whole video.
        decoder: which decoder read it.
        size, mtime_ns: of the file when it was read.
        segments: how many segments the video has, on its last one; None on the others.
        vector: pooled vector, (d,) float32 of unit norm.
        frame_vectors: (n, d) float32 of unit norm.
    """

    id: str
    video_id: str
    path: str
    start: float
    end: float
    timestamps: tuple[float, ...]
    duration: float
    fps: float
    decoder: str
    size: int
    mtime_ns: int
    segments: int | None
    vector: NDArray[np.float32] = field(repr=False)
    frame_vectors: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(
        cls, file: VideoFile, segment: EncodedSegment, *, segments: int | None = None, tenant: str | None = None
    ) -> SegmentRow:
        """Describe an encoded segment of a file; `segments` is how many the video has, given with its last one."""
        start, end = round(segment.start, 6), round(segment.end, 6)
        return cls(
            id=segment_id(file.video_id, start, end, tenant),
            video_id=file.video_id,
            path=file.path,
            start=start,
            end=end,
            timestamps=tuple(round(float(t), 6) for t in segment.timestamps),
            duration=round(segment.duration, 6),
            fps=round(segment.fps, 6),
            decoder=segment.decoder,
            size=file.size,
            mtime_ns=file.mtime_ns,
            segments=segments,
            vector=segment.vector,
            frame_vectors=segment.frame_vectors,
        )

    def payload(self) -> dict[str, Any]:
        """Return all fields but the id and the vectors, ready for JSON; `segments` only on the last segment."""
        payload = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_PAYLOAD}
        payload["timestamps"] = list(self.timestamps)
        if self.segments is None:
            del payload["segments"]
        return payload


_NOT_PAYLOAD = ("id", "vector", "frame_vectors")


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A file that gave no frames, remembered so that it is not decoded in vain again.

    Attributes:
        path, size, mtime_ns: of the file.
        reason: one clause saying what is wrong with it.
    """

    path: str
    size: int
    mtime_ns: int
    reason: str


@dataclass(frozen=True)
class Hit:
    """One segment that matches a query.

    Attributes:
        id: of the segment in its store.
        video_id: id of its video; in a foreign collection the value of `video_field`, or the segment's id.
        path: the video file, if the collection says.
        start, end: the segment, in seconds, likewise.
        score: similarity of query and pooled vector, in the collection's own distance (cosine).
        timestamp: seconds of the frame that matches best; None without frame vectors.
        payload: everything that the collection keeps about the segment.
    """

    id: str | int
    video_id: str
    path: str | None
    start: float | None
    end: float | None
    score: float
    timestamp: float | None
    payload: Mapping[str, Any] = field(repr=False, hash=False)

    @classmethod
    def of(
        cls,
        id: str | int,
        payload: Mapping[str, Any],
        score: float,
        *,
        video_id: str | int | None = None,
        timestamp: float | None = None,
    ) -> Hit:
        """Describe a segment by its payload; without a `video_id`, it is a video of its own."""
        return cls(
            id=id,
            video_id=str(id if video_id is None else video_id),
            path=payload.get("path"),
            start=payload.get("start"),
            end=payload.get("end"),
            score=score,
            timestamp=timestamp,
            payload=payload,
        )

    def __str__(self) -> str:
        span = "" if self.start is None or self.end is None else f"  {self.start:.1f}-{self.end:.1f} s"
        best = "" if self.timestamp is None else f" (best at {self.timestamp:.1f} s)"
        return f"{self.score:.3f}  {self.path or self.video_id}{span}{best}"


@dataclass(frozen=True, kw_only=True)
class VideoFilter:
    """Condition on the videos to search, in terms that every store understands.

    Attributes:
        words: words that the path has, all of them, separated by blanks.
        min_duration, max_duration: of the whole video, in seconds.
    """

    words: str = ""
    min_duration: float | None = None
    max_duration: float | None = None

    def __bool__(self) -> bool:
        return self != VideoFilter()

    def admits(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a segment with this payload (`path`, `duration`) is of such a video."""
        if not all(word in payload.get("path", "") for word in self.words.split()):
            return False
        if self.min_duration is None and self.max_duration is None:
            return True
        least, most = self.min_duration or 0.0, math.inf if self.max_duration is None else self.max_duration
        return bool(least <= payload.get("duration", math.nan) <= most)


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """Options of a search, beside the query.

    Attributes:
        limit: how many videos.
        per_video: how many segments of each.
        offset: how many of the best videos to leave out, for the next page. A page costs what all before it
            cost.
        filter: which videos to search: a `VideoFilter`, or a filter of the database's own (in Qdrant a
            `models.Filter`).
        min_score: similarity of query and pooled vector that a segment must have; `Calibration.score_of` gives
            that of a probability.
        exact: compare the query with every segment instead of following the index.
        rerank: order the best segments anew by their frames. "maxsim": by the frame nearest to the query. A
            function, such as `DITSQueryEncoder.xpool_reranker` returns: by what it makes of their frame vectors,
            a list of (frames, d). The score is theirs then.
        candidates: how many segments to re-rank at most: the `per_video` best of as many videos as that makes,
            or more of each where there are fewer videos. Videos of fewer segments leave places empty.
        locate: find the moment that matches best (`Hit.timestamp`), for which the hits' frame vectors are read: a
            dozen times what a hit takes otherwise.

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

    def __post_init__(self) -> None:
        if self.limit < 1 or self.per_video < 1 or self.offset < 0:
            raise InputError(
                f"limit is {self.limit}, per_video is {self.per_video} and offset is {self.offset}; the first two "
                "are at least 1, the last at least 0."
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InputError(f"min_score is {self.min_score}; it is a number.")
        if not (self.rerank is None or self.rerank == "maxsim" or callable(self.rerank)):
            raise InputError(f'rerank is {self.rerank!r}; it is "maxsim", a function or None.')
        if self.rerank is not None and self.candidates < (self.offset + self.limit) * self.per_video:
            raise InputError(
                f"candidates is {self.candidates}; to re-rank, it is at least (offset + limit) · per_video."
            )


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
        InputError: another shape; a vector that is zero or not finite, by its row; or a `rerank` function for
            several queries.
    """
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2:
        raise InputError(f"the query vectors have shape {queries.shape}; (n, {width}) is needed.")
    if queries.shape[1] != width:
        raise InputError(f"the query has {queries.shape[1]} dimensions; the collection's vectors have {width}.")
    wrong = np.flatnonzero(~(np.isfinite(queries).all(axis=1) & queries.any(axis=1)))
    if len(wrong):
        raise InputError(f"query vector {wrong[0]} is zero, or holds NaN or infinite values.")
    if callable(request.rerank) and len(queries) != 1:
        raise InputError("a function that re-ranks is for one query; search with each on its own.")
    return queries


@dataclass(frozen=True, kw_only=True)
class ReadRequest:
    """Stored segments to read, chosen by their ids, by the values of a payload field, or the first few.

    Attributes:
        ids: of segments (`Hit.id`).
        field: payload field whose values choose segments; with "" the values are ids written as strings.
        values: of `field`; a whole number is met by itself and by its digits.
        limit: how many at most.
        vectors: read the pooled vectors.
        frames: read the frame vectors, where the store has them.

    Raises:
        InputError: ids and a field at once, values without a field, or a limit below 1.
    """

    ids: Sequence[str | int] | None = None
    field: str | None = None
    values: Sequence[str] = ()
    limit: int | None = None
    vectors: bool = False
    frames: bool = False

    def __post_init__(self) -> None:
        if (self.ids is not None and self.field is not None) or (self.values and self.field is None):
            raise InputError("segments to read are chosen by ids, or by the values of a field.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}; it is at least 1.")

    def chooses(self, id: str | int, payload: Mapping[str, Any]) -> bool:
        """Return whether a segment is chosen; callers keep the `limit`."""
        if self.ids is not None:
            return id in self.ids
        return self.field is None or str(payload.get(self.field) if self.field else id) in self.values


@dataclass(frozen=True, eq=False)
class StoredSegment:
    """A segment as it was read from a store.

    Attributes:
        id: of the segment in its store.
        payload: what the store keeps about it.
        vector: pooled vector, (d,) float32; None where it was not asked for or is not there.
        frame_vectors: (n, d) float32; likewise.
    """

    id: str | int
    payload: Mapping[str, Any]
    vector: NDArray[np.float32] | None = None
    frame_vectors: NDArray[np.float32] | None = None


class VideoStore(ABC):
    """A collection of video segments in a vector database.

    A subclass sets the attributes and implements the abstract methods; docs/add-a-store.md shows one. Opening,
    creating and checking happen when they are needed, not at construction. Methods may be called from several
    threads; a store is used as a context manager, or closed.

    Attributes:
        capabilities: what the store can do beyond the least.
        location: where the collection is, for messages.
        name: the collection as it was given: its name, or an alias.
        space: the embedding space of the queries; a collection of another one is refused. None accepts any.
        tenant: whose videos are stored and searched; None where the collection keeps no tenants apart.
    """

    capabilities: Capabilities
    location: str
    name: str
    space: EmbeddingSpace | None = None
    tenant: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - memory has nothing to release
        """Release the connection or the files."""

    @property
    def collection(self) -> str:
        """Name of the collection itself, once it is known what an alias means."""
        return self.name

    @property
    def cosine(self) -> bool:
        """True if scores are cosines, of which alone probabilities are known; meaningful once opened."""
        return True

    @abstractmethod
    def metadata(self) -> CollectionMetadata | None:
        """Return the description that the collection carries; None where something else made it (foreign).

        Raises:
            StoreError: no such collection, metadata of a newer version, or the database cannot be reached.
        """

    @abstractmethod
    def create(self, metadata: CollectionMetadata, options: BaseModel | None = None) -> None:
        """Make the collection with its metadata; one that exists must be the same.

        Args:
            metadata: how its vectors are made.
            options: how the database keeps a new collection; a model of the store's own.

        Raises:
            InputError: segments that cannot be cut, or options that the store has not.
            SpaceMismatchError, StoreError: as `CollectionMetadata.require_same`; or it cannot be created.
        """

    def open(self) -> EmbeddingSpace:
        """Check the collection and return the embedding space that it is searched in.

        Raises:
            StoreError: it is missing, is foreign and not trusted, or keeps tenants apart and none is given.
            SpaceMismatchError: it is of another space, or of another width, than the queries.
        """
        metadata = self.metadata()
        if metadata is None:
            raise StoreError(
                f"the collection {self.name!r} does not say which embedding space its vectors live in: something "
                "other than dits_adapter made it."
            )
        if self.space is not None:
            self.space.require(metadata.space, mine="the query", theirs=f"the collection {self.name!r}")
        check_tenant(metadata, self.tenant, self.name)
        return metadata.space

    @abstractmethod
    def records(self) -> Iterable[VideoRecord]:
        """List the state of each video and of each file that failed.

        Raises:
            StoreError: there is no such collection, or it keeps tenants apart and none is given.
        """

    @abstractmethod
    def write(self, rows: Sequence[SegmentRow]) -> None:
        """Store segments durably; those of the same id are replaced."""

    @abstractmethod
    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        """Remember files that gave no frames; one failure a path."""

    @abstractmethod
    def delete(self, records: Sequence[VideoRecord]) -> None:
        """Delete all segments of these videos, and these failures."""

    @abstractmethod
    def update_path(self, file: VideoFile) -> None:
        """Write down that the stored video `file.video_id` now lies at `file.path`, with its size and time."""

    @abstractmethod
    def find(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Answer checked queries, (n, d) float32: for each the hits of `request`, best video first.

        Raises:
            StoreError: no frame vectors to re-rank with, or the database cannot be reached.
        """

    @abstractmethod
    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        """Read stored segments of the store's tenant, in any order; those that are not there are left out."""

    @abstractmethod
    def count(self) -> int:
        """Return how many segments the collection holds."""

    @abstractmethod
    def count_videos(self) -> int:
        """Return how many videos the collection holds whole; a foreign collection has one a segment."""

    def bulk_load(self, *, progress: bool = True) -> AbstractContextManager[None]:
        """Put off indexing while much is stored, where the database indexes while it is written to."""
        return nullcontext()

    def finish(self) -> None:  # noqa: B027 - most databases index by themselves
        """Complete the index over what was written, where the database does not do so by itself."""

    def search(
        self, query_vector: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the segments nearest to a query.

        Args:
            query_vector: (d,), from `DITSQueryEncoder.encode_query`; its norm does not matter.
            request: the options as one object; or give its fields as keyword arguments (`limit=5`).
            options: fields of `SearchRequest`.

        Returns:
            Best video first, and its best segment first.

        Raises:
            InputError: the vector is not (d,), or not finite, or zero; or an option outside its range.
            StoreError, SpaceMismatchError: as `open` and `find`.
        """
        request = from_keywords(SearchRequest, request, options)
        query = check_query(query_vector)
        return self.find(check_queries(query, self.open().width, request), request)[0]

    def search_batch(
        self, query_vectors: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Search for many queries, (n, d), in few requests; otherwise as `search`.

        Returns:
            For each query what `search` returns for it.

        Raises:
            InputError: also for a `rerank` function and several queries: it is of one query.
        """
        request = from_keywords(SearchRequest, request, options)
        return self.find(check_queries(query_vectors, self.open().width, request), request)


def check_tenant(metadata: CollectionMetadata | None, tenant: str | None, collection: str) -> None:
    """Refuse a tenant where the collection keeps none apart, and none where it does.

    Raises:
        StoreError: naming the collection and the remedy.
    """
    separate = metadata is not None and metadata.tenants
    if separate and tenant is None:
        raise StoreError(f"the collection {collection!r} keeps tenants apart: say which, with tenant=….")
    if tenant is not None and not separate:
        raise StoreError(
            f"the collection {collection!r} does not keep tenants apart; leave out tenant={tenant!r}, or ingest "
            "into a new collection with it."
        )


def video_records(payloads: Iterable[Mapping[str, Any]]) -> list[VideoRecord]:
    """Gather the state of each video from the payloads of its segments (`SegmentRow.payload`).

    A payload with the key `failure`, whose value is the reason, is that of a failure; one that ingestion did not
    write is left out.
    """
    videos: dict[str, VideoRecord] = {}
    failures: list[VideoRecord] = []
    for payload in payloads:
        if not payload.keys() >= {"path", "size", "mtime_ns"}:
            continue
        file = (payload["path"], payload["size"], payload["mtime_ns"])
        if "failure" in payload:
            failures.append(VideoRecord(*file, failure=payload["failure"]))
        elif "video_id" in payload:
            record = videos.setdefault(payload["video_id"], VideoRecord(*file, video_id=payload["video_id"]))
            record.found += 1
            record.expected = payload.get("segments", record.expected)
    return [*videos.values(), *failures]


def video_id_of(sha256: str) -> str:
    """Return the id of a video whose content has this SHA-256 (hex)."""
    return str(uuid.uuid5(_NAMESPACE, sha256))


def segment_id(video_id: str, start: float, end: float, tenant: str | None = None) -> str:
    """Return the id of one segment of a video, given in seconds; each tenant has one of its own."""
    return str(uuid.uuid5(uuid.UUID(video_id), f"{start:.6f}-{end:.6f}{_suffix(tenant)}"))


def failure_id(path: str, tenant: str | None = None) -> str:
    """Return the id under which a store that has only rows with ids remembers the failure of a file."""
    return str(uuid.uuid5(_NAMESPACE, f"failure{_suffix(tenant)}:{path}"))


def _suffix(tenant: str | None) -> str:
    return "" if tenant is None else f":{tenant}"
