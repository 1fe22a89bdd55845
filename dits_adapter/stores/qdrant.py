"""Video segments in a Qdrant collection: made, stamped with their embedding space, filled and searched."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from qdrant_client import QdrantClient, models
from qdrant_client.client_base import QdrantBase

from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.connection import Connection
from dits_adapter.stores.options import RESCORED, CollectionOptions
from dits_adapter.stores.segments import FRAMES, POOLED, STAMP, Hit, Record, Stamp, VideoFile

if TYPE_CHECKING:
    from dits_adapter.stores.ingest import IngestReport
    from dits_adapter.video.encoder import VideoEncoder

T = TypeVar("T")

SCROLL = 1000


def collection_space(client: QdrantBase, collection: str) -> EmbeddingSpace:
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
        location: a server's URL, a folder (Qdrant's engine in this process), ":memory:", or a `QdrantClient` of
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

    Nothing is opened, created or checked before it is needed. Use it as a context manager, or `close` it: a
    folder lets one process in at a time, with as many threads as it likes.

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
        location: str | PathLike[str] | QdrantBase,
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
        self._connection = Connection(location)

    def __enter__(self) -> QdrantStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection or the folder; a client that was passed in stays open."""
        self._connection.close()
        self._opened = None

    @property
    def client(self) -> QdrantBase:
        """The Qdrant client behind the store, for whatever this class does not offer.

        For a folder it is an `EdgeClient`, which has the methods of a `QdrantClient` that make sense there.

        Raises:
            StoreError: the folder holds no store, or another process has it open.
        """
        return self._connection.client

    @property
    def location(self) -> str:
        """Where the collection is, for messages."""
        return self._connection.location

    @property
    def remote(self) -> bool:
        """Whether it is on a server that this store has its own connection to."""
        return self._connection.remote

    @property
    def in_memory(self) -> bool:
        """Whether it is in memory, where every search is exact."""
        return self._connection.in_memory

    def explained(self) -> AbstractContextManager[None]:
        """Turn what the client raises into a StoreError that says what to do."""
        return self._connection.explained()

    def lasting(self, request: Callable[[], T]) -> T:
        """Make a request that may be made twice, and wait while a server restarts or is overloaded."""
        return self._connection.lasting(request)

    def exists(self) -> bool:
        """Whether the collection is there."""
        with self.explained():
            return self._connection.is_there() and self.client.collection_exists(self.collection)

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
            options: how a server or a folder keeps it, for a new collection.

        Raises:
            InputError: segments without a length, an overlap that is not shorter than they are, or options that
                the place has not: memory has none, a folder no shards and replicas.
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
        if options is not None and self.in_memory:
            raise InputError("options of a collection are for a server or a folder; memory has none.")
        if options is not None and self._connection.folder is not None:
            options.require_one_copy(self.location)
        stamp = Stamp(space=space, segment_seconds=segment_seconds, overlap=overlap)
        self._connection.make_folder()
        with self.explained():
            exists = self.client.collection_exists(self.collection)
        if exists:
            self._require_same(stamp)
            self._require_kept_as(options)
        else:
            self._create(stamp, options or CollectionOptions())

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
            with warnings.catch_warnings():  # memory warns that it has no use for indexes
                warnings.simplefilter("ignore")
                self.client.create_payload_index(self.collection, "video_id", models.PayloadSchemaType.UUID)
                self.client.create_payload_index(self.collection, "path", models.PayloadSchemaType.KEYWORD)

    def build_index(self) -> None:
        """Index what was written since the last time. A server does that by itself; in a folder, ingestion does.

        Raises:
            StoreError: too little free space: the new index lies beside the old one until it is complete.
        """
        client = self.client
        if isinstance(client, QdrantClient):
            return
        from dits_adapter.stores.edge import EdgeClient

        assert isinstance(client, EdgeClient)
        with self.explained():
            client.optimize(self.collection)

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
        """Return what is asked for; memory is searched exactly anyway, and warns of parameters."""
        if exact and not self.in_memory:
            return models.SearchParams(exact=True)
        return RESCORED if self._quantised else None

    def _frame_vectors(self, points: Sequence[models.ScoredPoint]) -> dict[models.ExtendedPointId, Any]:
        """Fetch the frame vectors of hits only: asked for by the search, memory copies everybody's."""
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
            id=point.id,
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
            points, offset = self.lasting(
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
            self.lasting(lambda: self.client.upsert(self.collection, points, wait=True))

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
            self.lasting(partial(self.client.delete, self.collection, selector, wait=True))

    def relocate(self, file: VideoFile) -> None:
        """Write down that a stored video now lies at `file`."""
        payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns}
        video = _of_video(file.video_id)
        self.lasting(lambda: self.client.set_payload(self.collection, payload, points=video, wait=True))


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
