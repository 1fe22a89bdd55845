"""Video segments in a Qdrant collection: its schema, the stamp of its embedding space, and search.

A point is one segment of one video. It has two vectors, `video` (the pooled one, cosine, searched through HNSW)
and `frames` (one vector a frame, MaxSim, not indexed: for locating and re-ranking), and this payload:

| field               | meaning                                                                        |
|---------------------|--------------------------------------------------------------------------------|
| `video_id`          | UUID made from the file's content: a renamed file keeps its id                 |
| `path`              | where that content was last seen, absolute                                     |
| `start`, `end`      | the segment, in seconds                                                        |
| `timestamps`        | of the frames, in seconds                                                      |
| `duration`, `fps`   | of the whole video                                                             |
| `decoder`           | which backend decoded it                                                       |
| `size`, `mtime_ns`  | of the file when it was read: an unchanged file is recognised without reading  |
| `segments`          | on a video's last segment only: how many there are; a video with fewer, or     |
|                     | without this number, was interrupted and is done again                         |

A file that could not be read is a point without vectors, which no search returns: `path`, `size`, `mtime_ns` and
`failure`, the reason. Everything that ingestion has to remember thus lives in the collection itself, and travels
with its snapshots, replicas and aliases.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json import JSONDecodeError
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.options import RESCORED, CollectionOptions

if TYPE_CHECKING:
    from dits_adapter.stores.ingest import IngestReport
    from dits_adapter.video.encoder import EncodedSegment, VideoEncoder

T = TypeVar("T")
logger = logging.getLogger(__name__)

STAMP = "dits_adapter"
"""Key of the collection's metadata under which the `Stamp` is kept."""
POOLED, FRAMES = "video", "frames"
TIMEOUT = 60
"""Seconds for one request: uploads wait until the server has them on disk."""
PATIENCE = 60
"""Seconds for which writes are tried again while the server restarts or is overloaded."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first repetition, doubled from one to the next, up to the longest."""
OVERLOADED = (429, 502, 503, 504)
"""HTTP answers of a server, or of what stands before it, that may be another a moment later."""
SCROLL = 1000
_NAMESPACE = uuid.UUID("5d0f6c52-6f0e-5f0c-9d3c-1f7c0b7a4e21")


class Stamp(BaseModel):
    """What a collection says about itself: how its vectors were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    space: EmbeddingSpace
    segment_seconds: float | None = None
    overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file on disk, and the identity of its content."""

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""


@dataclass(slots=True)
class Record:
    """What a collection knows about one video, or about one file that could not be read (`failure`)."""

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""
    failure: str = ""
    found: int = 0
    expected: int = -1

    @property
    def complete(self) -> bool:
        """Whether all segments of the video are there."""
        return self.found == self.expected

    def is_of(self, file: VideoFile) -> bool:
        """Whether `file` is, by name, size and modification time, the one that this was recorded of."""
        return (self.path, self.size, self.mtime_ns) == (file.path, file.size, file.mtime_ns)


@dataclass(frozen=True)
class Hit:
    """One segment that matches a query.

    Attributes:
        video_id: id of its video; in an unstamped collection the value of `video_field`, or the point's id.
        path: the video file, if the collection says.
        start, end: the segment, in seconds, likewise.
        score: similarity of query and pooled vector, in the collection's own distance (cosine).
        timestamp: seconds of the frame that matches best; None without frame vectors.
        payload: everything that the collection keeps about the segment.
    """

    video_id: str
    path: str | None
    start: float | None
    end: float | None
    score: float
    timestamp: float | None
    payload: Mapping[str, Any] = field(repr=False, hash=False)

    def __str__(self) -> str:
        span = "" if self.start is None or self.end is None else f"  {self.start:.1f}-{self.end:.1f} s"
        best = "" if self.timestamp is None else f" (best at {self.timestamp:.1f} s)"
        return f"{self.score:.3f}  {self.path or self.video_id}{span}{best}"


def video_id(sha256: str) -> str:
    """Return the id of a video whose content has this SHA-256 (hex)."""
    return str(uuid.uuid5(_NAMESPACE, sha256))


def segment_id(video_id: str, start: float, end: float) -> str:
    """Return the id of the point of one segment of a video, given in seconds."""
    return str(uuid.uuid5(uuid.UUID(video_id), f"{start:.6f}-{end:.6f}"))


def segment_point(file: VideoFile, segment: EncodedSegment, *, segments: int | None = None) -> models.PointStruct:
    """Describe one segment as a point; `segments` is how many the video has, given with its last one.

    Times are rounded to microseconds, so that they and the id come out the same from every run.
    """
    start, end = round(segment.start, 6), round(segment.end, 6)
    payload = {
        "video_id": file.video_id,
        "path": file.path,
        "start": start,
        "end": end,
        "timestamps": [round(float(t), 6) for t in segment.timestamps],
        "duration": round(segment.duration, 6),
        "fps": round(segment.fps, 6),
        "decoder": segment.backend,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
    }
    if segments is not None:
        payload["segments"] = segments
    return models.PointStruct(
        id=segment_id(file.video_id, start, end),
        vector={POOLED: segment.vector.tolist(), FRAMES: segment.frame_vectors.tolist()},
        payload=payload,
    )


def failure_point(file: VideoFile, reason: str) -> models.PointStruct:
    """Describe a file that could not be read as a point without vectors."""
    payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, "failure": reason}
    return models.PointStruct(id=str(uuid.uuid5(_NAMESPACE, "failure:" + file.path)), vector={}, payload=payload)


def collection_space(client: QdrantClient, collection: str) -> EmbeddingSpace:
    """Return the embedding space that a collection is stamped with.

    Raises:
        StoreError: no such collection, or it carries no stamp.
    """
    store = QdrantStore(client, collection)
    stamp = store.stamp()
    if stamp is None:
        raise StoreError(_unstamped(collection))
    return stamp.space


def _unstamped(collection: str) -> str:
    return (
        f"the collection {collection!r} does not say which embedding space its vectors live in: something other "
        "than dits_adapter made it. If you know that its videos were embedded with the CLIP of your query "
        "encoder, say so: QdrantStore(…, space=encoder.space, vector=NAME, trust_unstamped=True), or on the "
        "command line --vector NAME --trust-unstamped."
    )


class QdrantStore:
    """A collection of video segments in a Qdrant server, an embedded folder, or memory.

    Args:
        location: a server's URL, a folder for qdrant-client's embedded mode, ":memory:", or a `QdrantClient` of
            your own, which is used as it is and never closed. For a URL the API key comes from the environment
            variable QDRANT_API_KEY.
        collection: its name, or an alias.
        space: the embedding space of the queries; if given, a collection of another one is refused when it is
            opened.
        vector: the vector that is searched; "" is the unnamed one.
        video_field: payload field that says which video a point belongs to, for grouping. By default `video_id`
            in a collection made here, and none (every point is a video) in an unstamped one.
        trust_unstamped: search a collection that something else made, without proof that its vectors live in
            `space`. Only the width can be checked then: another CLIP of the same width gives wrong results
            without an error.

    Attributes:
        remote: whether it is a server that this store has its own connection to.

    Nothing is opened, created or checked before it is needed. Use it as a context manager, or `close` it: an
    embedded folder lets one process in at a time.

    Example:
        >>> import numpy as np
        >>> client = QdrantClient(":memory:")
        >>> vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
        >>> _ = client.create_collection("mine", vectors_config={"clip": vectors})
        >>> client.upsert("mine", [models.PointStruct(id=7, vector={"clip": [1, 0]}, payload={})]).status.value
        'completed'
        >>> QdrantStore(client, "mine", vector="clip").search(np.array([1.0, 0.0]))
        Traceback (most recent call last):
        dits_adapter.errors.StoreError: the collection 'mine' does not say which embedding space its ...
    """

    def __init__(
        self,
        location: str | PathLike[str] | QdrantClient,
        collection: str = "videos",
        *,
        space: EmbeddingSpace | None = None,
        vector: str = POOLED,
        video_field: str | None = None,
        trust_unstamped: bool = False,
    ) -> None:
        if trust_unstamped and space is None:
            raise InputError("trust_unstamped needs space=…: the space that the collection is trusted to be of.")
        self.collection = collection
        self.vector = vector
        self._space = space
        self._video_field = video_field
        self._trust_unstamped = trust_unstamped
        self._has_frames = self._quantised = False
        self._opened: EmbeddingSpace | None = None
        self._client: QdrantClient | None = None
        self._folder: Path | None = None
        self._own_client = not isinstance(location, QdrantClient)
        self.remote = False
        if isinstance(location, QdrantClient):
            self._client = location
            self.location = "the Qdrant of the given client"
            return
        if not isinstance(location, (str, PathLike)):
            raise InputError(
                f"location is a {type(location).__name__}; it is a URL, a folder, ':memory:' or a QdrantClient."
            )
        self.location = os.fspath(location)
        if re.fullmatch(r"[\w.-]+:\d+/?", self.location):
            raise InputError(f"location {self.location!r}: write a server's address as http://{self.location}")
        self.remote = re.match(r"https?://", self.location) is not None
        if self.location != ":memory:" and not self.remote:
            self._folder = Path(location).absolute()

    def __enter__(self) -> QdrantStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection or the folder; a client that was passed in stays open."""
        if self._own_client and self._client is not None:
            self._client.close()
            self._client = self._opened = None

    @property
    def client(self) -> QdrantClient:
        """The Qdrant client behind the store, for whatever this class does not offer.

        Raises:
            StoreError: the folder holds no store, or another process has it open.
        """
        if self._client is None:
            if self._folder is not None and not (self._folder / "meta.json").is_file():
                raise StoreError(f"{self.location}: no Qdrant store is here. Ingest videos into it first.")
            self._client = self._connect()
        return self._client

    def _connect(self) -> QdrantClient:
        if self.location == ":memory:":
            return QdrantClient(":memory:")
        if self._folder is None:
            key = os.environ.get("QDRANT_API_KEY")
            # What this module needs of a server it checks itself, by whether the stamp was kept.
            return QdrantClient(url=self.location, api_key=key, timeout=TIMEOUT, check_compatibility=False)
        try:
            return QdrantClient(path=str(self._folder))
        except RuntimeError:
            raise StoreError(
                f"{self.location} is open in another process, or elsewhere in this one, and an embedded store "
                "lets only one in. Close the other, or run a Qdrant server and give its URL."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.location}: cannot be opened for writing ({error}), which embedded mode needs even to "
                "search. Check the folder's permissions and the free space, or copy the folder elsewhere."
            ) from error
        except ValueError as error:
            raise StoreError(f"{self.location}: the store's meta.json cannot be read ({error}).") from error

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the client raises into a StoreError that says what to do."""
        try:
            yield
        except (ResponseHandlingException, JSONDecodeError) as error:
            reason = getattr(error, "source", error)
            raise StoreError(
                f"{self.location} gives no usable answer ({reason}). Is a Qdrant server running there, and is the "
                "address right?"
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise StoreError(self._refused()) from error
            answer = error.content.decode("utf-8", "replace")[:300]
            raise StoreError(f"{self.location} answers {error.status_code}: {answer}") from error
        except ResourceExhaustedResponse as error:
            raise StoreError(f"{self.location} is overloaded; try again in {error.retry_after_s} s.") from error
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise StoreError(self._refused()) from error
            raise StoreError(f"{self.location} answers {error.code().name}: {error.details()}") from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.location}: reading or writing failed ({error}). Check the free space and the folder's "
                "permissions."
            ) from error

    def _lasting(self, request: Callable[[], T]) -> T:
        """Make a request that may be made twice; while the server is away or overloaded, wait and repeat it."""
        pause, end = FIRST_PAUSE, time.monotonic() + PATIENCE
        with self.explained():
            while True:
                try:
                    return request()
                except (
                    ResponseHandlingException,
                    UnexpectedResponse,
                    ResourceExhaustedResponse,
                    grpc.RpcError,
                ) as error:
                    asked = float(getattr(error, "retry_after_s", 0))
                    wait = max(asked, pause * random.uniform(0.75, 1.25))  # many writers should not come at once
                    if not _passes(error) or time.monotonic() + wait > end:
                        raise
                    logger.warning("%s does not take the data (%s); again in %.1f s", self.location, error, wait)
                time.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _refused(self) -> str:
        return f"{self.location} refuses access: set QDRANT_API_KEY to a key that may use {self.collection!r}."

    def stamp(self) -> Stamp | None:
        """Return what the collection says about itself; None if it was not made here.

        Raises:
            StoreError: no such collection, a stamp of a newer version, or the server cannot be reached.
        """
        with self.explained():
            if not self.client.collection_exists(self.collection):
                names = sorted(c.name for c in self.client.get_collections().collections)
                raise StoreError(
                    f"{self.location} has no collection {self.collection!r}; "
                    + (f"it has {', '.join(names)}." if names else "it has none at all.")
                )
            metadata = self.client.get_collection(self.collection).config.metadata or {}
        if STAMP not in metadata:
            return None
        try:
            return Stamp.model_validate(metadata[STAMP])
        except ValidationError as error:
            raise StoreError(
                f"the stamp of the collection {self.collection!r} cannot be understood; a newer dits_adapter may "
                f"have written it. {error}"
            ) from error

    def open(self) -> EmbeddingSpace:
        """Check the collection, once, and return the embedding space that it is searched in.

        Raises:
            StoreError: it is missing, is unstamped and not trusted, or has no vector of the name asked for.
            SpaceMismatchError: it is of another space, or of another width, than the queries.
        """
        if self._opened is not None:
            return self._opened
        stamp = self.stamp()
        if stamp is not None:
            space = stamp.space
            self._video_field = self._video_field or "video_id"
            if self._space is not None:
                self._space.require(space, mine="the query", theirs=f"the collection {self.collection!r}")
        elif self._trust_unstamped and self._space is not None:
            space = self._space
        else:
            raise StoreError(_unstamped(self.collection))
        with self.explained():
            config = self.client.get_collection(self.collection).config.params.vectors
        vectors = config if isinstance(config, dict) else {"": config}
        params = vectors.get(self.vector)
        if params is None:
            there = ", ".join(repr(name) for name in vectors)
            raise StoreError(f"the collection {self.collection!r} has no vector {self.vector!r}; it has {there}.")
        if params.size != space.width:
            raise SpaceMismatchError(
                f"the vector {self.vector!r} of the collection {self.collection!r} has width {params.size}; the "
                f"queries have {space.width} ({space})."
            )
        if stamp is None:
            warnings.warn(
                f"the collection {self.collection!r} does not say which embedding space it is of; it is taken to "
                f"be {space}, as you said. Only its width ({params.size}) could be checked, and scores are those "
                f"of its {params.distance.value} distance.",
                stacklevel=3,
            )
        self._has_frames = FRAMES in vectors
        self._quantised = params.quantization_config is not None
        self._opened = space
        return space

    def create(
        self,
        space: EmbeddingSpace,
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        options: CollectionOptions | None = None,
    ) -> None:
        """Make the collection, stamped; one that is there already must be the same.

        Args:
            space: the embedding space of its vectors.
            segment_seconds: length of a segment, in seconds; None for whole videos.
            overlap: of neighbouring segments, in seconds.
            options: how a server keeps it, for a new collection.

        Raises:
            InputError: segments without a length, an overlap that is not shorter than they are, or options for an
                embedded store, which has none.
            SpaceMismatchError: the collection, or the queries' `space`, is of another space.
            StoreError: it exists, cut in other segments, kept otherwise or made by something else; or it cannot be
                created.
        """
        if self._space is not None:
            self._space.require(space, mine="the query", theirs="the videos to be stored")
        whole = segment_seconds is None and overlap == 0
        if not whole and (segment_seconds is None or not 0 <= overlap < segment_seconds < math.inf):
            raise InputError(
                f"segment_seconds is {segment_seconds} and overlap is {overlap}; segments have a length, and "
                "overlap by less than it."
            )
        if options is not None and not self.remote and self._own_client:
            raise InputError(f"{self.location}: options of a collection are for a server; this store is embedded.")
        stamp = Stamp(space=space, segment_seconds=segment_seconds, overlap=overlap)
        self._make_folder()
        with self.explained():
            exists = self.client.collection_exists(self.collection)
        if exists:
            self._require_same(stamp)
            self._require_kept_as(options)
        else:
            self._create(stamp, options or CollectionOptions())

    def _make_folder(self) -> None:
        """Let the embedded mode start a store, but only in a folder that holds nothing else."""
        if self._client is not None or self._folder is None or (self._folder / "meta.json").is_file():
            return
        try:
            if self._folder.exists() and any(self._folder.iterdir()):
                raise StoreError(
                    f"{self.location} has other files in it and is no Qdrant store; give a new or empty folder."
                )
        except OSError as error:
            raise StoreError(f"{self.location}: no store can be made here ({error}).") from error
        self._client = self._connect()

    def _require_same(self, stamp: Stamp) -> None:
        existing = self.stamp()
        if existing is None:
            raise StoreError(
                f"the collection {self.collection!r} was made by something else than dits_adapter; ingest into "
                "a collection of its own, under another name."
            )
        stamp.space.require(existing.space, mine="the video encoder", theirs=f"the collection {self.collection!r}")
        if (existing.segment_seconds, existing.overlap) != (stamp.segment_seconds, stamp.overlap):
            raise StoreError(
                f"the collection {self.collection!r} holds {_cut(existing)}, and this asks for {_cut(stamp)}. Ask "
                "for the same, or ingest into another collection."
            )

    def _require_kept_as(self, options: CollectionOptions | None) -> None:
        if options is None:
            return
        with self.explained():
            params = self.client.get_collection(self.collection).config.params
        assert isinstance(params.vectors, dict)
        found = CollectionOptions.of(params, params.vectors[POOLED])
        other = [
            f"{name}={getattr(found, name)} instead of {getattr(options, name)}"
            for name in sorted(options.model_fields_set)
            if getattr(found, name) != getattr(options, name)
        ]
        if other:
            raise StoreError(
                f"the collection {self.collection!r} is there already, with {', '.join(other)}. Options are for a "
                "new collection: leave them out, or ingest into another one."
            )

    def _create(self, stamp: Stamp, options: CollectionOptions) -> None:
        width = stamp.space.width
        with self.explained():
            self.client.create_collection(
                self.collection,
                vectors_config={POOLED: options.pooled(width), FRAMES: options.frames(width)},
                **options.collection(),
                metadata={STAMP: stamp.model_dump(mode="json")},
            )
            if self.stamp() is None:
                self.client.delete_collection(self.collection)
                raise StoreError(
                    f"{self.location} runs Qdrant {self.client.info().version}, which keeps no collection "
                    "metadata, where the embedding space is written down. Use Qdrant 1.16 or newer."
                )
            with warnings.catch_warnings():  # embedded mode warns that it has no use for indexes
                warnings.simplefilter("ignore")
                self.client.create_payload_index(self.collection, "video_id", models.PayloadSchemaType.UUID)
                self.client.create_payload_index(self.collection, "path", models.PayloadSchemaType.KEYWORD)

    def ingest(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        encoder: VideoEncoder,
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        retry_failed: bool = False,
        sync: bool = False,
        options: CollectionOptions | None = None,
        progress: bool = True,
    ) -> IngestReport:
        """Embed the videos of folders and files and store them: `dits_adapter.stores.ingest.ingest`."""
        from dits_adapter.stores.ingest import ingest

        return ingest(
            self,
            paths,
            encoder,
            segment_seconds=segment_seconds,
            overlap=overlap,
            retry_failed=retry_failed,
            sync=sync,
            options=options,
            progress=progress,
        )

    def search(
        self,
        query_vector: ArrayLike,
        *,
        limit: int = 10,
        per_video: int = 1,
        query_filter: models.Filter | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the segments nearest to a query.

        Args:
            query_vector: (d,), from `DITSQueryEncoder.encode_query`; its norm does not matter.
            limit: how many videos.
            per_video: how many segments of each.
            query_filter: a Qdrant filter on the payload.
            exact: compare the query with every segment instead of following the index.

        Returns:
            Best video first, and its best segment first.

        Raises:
            InputError: the vector is not (d,), or not finite, or zero.
            StoreError, SpaceMismatchError: as `open`; or the server cannot be reached.
        """
        if limit < 1 or per_video < 1:
            raise InputError(f"limit is {limit} and per_video is {per_video}; both are at least 1.")
        space = self.open()
        query = _check_query(query_vector, space.width)
        common: dict[str, Any] = {
            "collection_name": self.collection,
            "query": query.tolist(),
            "using": self.vector or None,
            "query_filter": query_filter,
            "search_params": self._search_params(exact),
            "with_payload": True,
        }
        with self.explained():
            if self._video_field is None:
                points = self.client.query_points(limit=limit, **common).points
            else:
                groups = self.client.query_points_groups(
                    group_by=self._video_field, limit=limit, group_size=per_video, **common
                ).groups
                points = [point for group in groups for point in group.hits]
            frames = self._frame_vectors(points)
        return [self._hit(point, frames.get(point.id), query) for point in points]

    def _search_params(self, exact: bool) -> models.SearchParams | None:
        """Return what a server is asked for; the embedded mode takes no parameters, and says so."""
        if exact and (self.remote or not self._own_client):
            return models.SearchParams(exact=True)
        return RESCORED if self._quantised else None

    def _frame_vectors(self, points: Sequence[models.ScoredPoint]) -> dict[models.ExtendedPointId, Any]:
        """Fetch the frame vectors of hits only: asked for by the search, embedded mode copies everybody's."""
        if not self._has_frames or not points:
            return {}
        ids = [point.id for point in points]
        records = self.client.retrieve(self.collection, ids, with_payload=False, with_vectors=[FRAMES])
        return {r.id: r.vector[FRAMES] for r in records if isinstance(r.vector, dict) and FRAMES in r.vector}

    def _hit(self, point: models.ScoredPoint, frames: Any, query: NDArray[np.float32]) -> Hit:
        payload = point.payload or {}
        times = payload.get("timestamps")
        timestamp = None
        if frames is not None and times is not None and len(times) == len(frames):
            timestamp = float(times[int(np.argmax(np.asarray(frames) @ query))])
        return Hit(
            video_id=str(payload.get(self._video_field or "", point.id)),
            path=payload.get("path"),
            start=payload.get("start"),
            end=payload.get("end"),
            score=point.score,
            timestamp=timestamp,
            payload=payload,
        )

    def count(self) -> int:
        """Return how many segments the collection holds."""
        self.open()
        everything_stored = models.Filter(must=[models.HasVectorCondition(has_vector=self.vector)])
        with self.explained():
            return self.client.count(self.collection, everything_stored, exact=True).count

    def records(self) -> list[Record]:
        """List what the collection knows of each video and of each file that failed, by reading all payloads."""
        videos: dict[str, Record] = {}
        failures: list[Record] = []
        fields = ["video_id", "path", "size", "mtime_ns", "segments", "failure"]
        offset = None
        while True:
            points, offset = self._lasting(
                partial(
                    self.client.scroll,
                    self.collection,
                    limit=SCROLL,
                    offset=offset,
                    with_payload=fields,
                    with_vectors=False,
                )
            )
            for point in points:
                payload = dict(point.payload or {})
                segments = payload.pop("segments", None)
                if "failure" in payload:
                    failures.append(Record(**payload))
                    continue
                if "video_id" not in payload:  # a point that somebody else put here
                    continue
                record = videos.setdefault(payload["video_id"], Record(**payload))
                record.found += 1
                record.expected = record.expected if segments is None else segments
            if offset is None:
                return [*videos.values(), *failures]

    def write(self, points: list[models.PointStruct]) -> None:
        """Store points and wait until they are there; points of the same id are replaced.

        This, `forget` and `relocate` outlast a server that restarts or is overloaded, for up to `PATIENCE`.
        """
        if points:
            self._lasting(lambda: self.client.upsert(self.collection, points, wait=True))

    def forget(self, records: Sequence[Record]) -> None:
        """Delete all points of these videos and failures."""
        for record in records:
            if record.failure:
                path = models.FieldCondition(key="path", match=models.MatchValue(value=record.path))
                empty = models.IsEmptyCondition(is_empty=models.PayloadField(key="failure"))
                chosen = models.Filter(must=[path], must_not=[empty])
            else:
                chosen = _of_video(record.video_id)
            selector = models.FilterSelector(filter=chosen)
            self._lasting(partial(self.client.delete, self.collection, selector, wait=True))

    def relocate(self, file: VideoFile) -> None:
        """Write down that a stored video now lies at `file`."""
        payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns}
        video = _of_video(file.video_id)
        self._lasting(lambda: self.client.set_payload(self.collection, payload, points=video, wait=True))


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in OVERLOADED
    if isinstance(error, grpc.RpcError):
        code = grpc.StatusCode
        return error.code() in (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED)
    return True


def _of_video(video_id: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="video_id", match=models.MatchValue(value=video_id))])


def _cut(stamp: Stamp) -> str:
    if stamp.segment_seconds is None:
        return "whole videos"
    return f"segments of {stamp.segment_seconds:g} s overlapping by {stamp.overlap:g} s"


def _check_query(vector: ArrayLike, width: int) -> NDArray[np.float32]:
    query = np.asarray(vector, dtype=np.float32)
    if query.shape != (width,):
        raise InputError(f"the query vector has shape {query.shape}; one of shape ({width},) is needed.")
    if not np.isfinite(query).all() or not query.any():
        raise InputError("the query vector is zero, or holds NaN or infinite values.")
    return query
