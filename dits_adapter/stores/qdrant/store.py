"""Video segments in a Qdrant collection: made with its metadata, filled and searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from qdrant_client import QdrantClient, models
from qdrant_client.client_base import QdrantBase

from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._words import words_of
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.bias import BIAS, ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant._collection import PAGE, QdrantCollection
from dits_adapter.stores.qdrant._connection import Connection
from dits_adapter.stores.qdrant._facts import CollectionFacts
from dits_adapter.stores.qdrant._finding import finding
from dits_adapter.stores.qdrant._lanes import finding_said, fusing, text_operations, without_said
from dits_adapter.stores.qdrant._limits import Limits, storing
from dits_adapter.stores.qdrant._making import (
    index_payload,
    index_put_off,
    make_collection,
    refuse_old_server,
    require_kept_as,
    resume_indexing,
    warn_of_shared_idf,
)
from dits_adapter.stores.qdrant._requests import (
    BatchUpdate,
    CollectionExists,
    Delete,
    DeletePayload,
    DeleteVectors,
    GetCollection,
    Request,
    Scroll,
    SetPayload,
    UpdateCollection,
)
from dits_adapter.stores.qdrant._schema import (
    FAILURE,
    FRAMES,
    METADATA_KEY,
    NAME_RULE,
    POOLED,
    WORDS,
    failure_point,
    is_collection_name,
    is_failure,
    segment_point,
)
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import (
    FailureRow,
    SegmentRow,
    StoredSegment,
    VideoFile,
    VideoRecord,
    failure_rows,
    video_records,
)
from dits_adapter.stores.text_lane import SAID, UNFINISHED, TextLane

__all__ = ["FRAMES", "POOLED", "QdrantStore"]

T = TypeVar("T")

_DELETE = 250
"""Videos deleted by one request."""


class QdrantStore(CollectionFacts, VideoStore):
    """A collection of video segments in a Qdrant server, a folder, or memory.

    Args:
        location: a server's URL, a folder (Qdrant's engine in this process), ":memory:", or a `QdrantClient` of
            your own, which is used as it is and never closed. For a URL the API key comes from the environment
            variable QDRANT_API_KEY.
        collection: name of the collection, or an alias.
        space: the embedding space of the queries; if given, a collection of another one is refused when it is
            opened.
        layout: names of the vector and the payload fields, in a collection that something else made. By default
            those that it was adopted with (`adopt_collection`).
        trust_foreign: search a collection that something else made, without proof that its vectors live in
            `space`. Only the width can be checked then: another CLIP of the same width gives wrong results
            without an error.
        tenant: whose videos to store and to search, in a collection that keeps tenants apart; nobody sees, and
            nothing deletes, those of another one. A new collection that is ingested into with a tenant is such a
            collection.
        patience: seconds that a request to a server may take: while the server is away, restarts, hangs or is
            overloaded, the request is repeated. By default 120; searches, for which somebody waits, are repeated
            for 3, once if they are broken off later, and take 30 at most. A client of your own keeps its timeouts.

    An alias is looked up when the collection is opened; the collection that it means then is searched until that
    is gone, even if the alias is switched to another one meanwhile.

    Nothing is opened, created or checked before it is needed. A folder lets one process in at a time, with as many
    threads as it likes. `SearchRequest.filter` may also be a `models.Filter` on the payload, and `create` takes
    `CollectionOptions`.

    Examples:
        >>> import numpy as np
        >>> client = QdrantClient(":memory:")
        >>> vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
        >>> _ = client.create_collection("mine", vectors_config={"clip": vectors})
        >>> client.upsert("mine", [models.PointStruct(id=7, vector={"clip": [1, 0]}, payload={})]).status.value
        'completed'
        >>> QdrantStore(client, "mine").search(np.array([1.0, 0.0]))
        Traceback (most recent call last):
        dits_adapter.errors.StoreError: the collection 'mine' does not say which embedding space its ...
    """

    def __init__(
        self,
        location: str | PathLike[str] | QdrantBase,
        collection: str = "videos",
        *,
        space: EmbeddingSpace | None = None,
        layout: PointLayout | None = None,
        trust_foreign: bool = False,
        tenant: str | None = None,
        patience: float | None = None,
    ) -> None:
        self._connection = Connection(location, patience)
        self._collection = QdrantCollection(
            self._connection.location,
            collection,
            space=space,
            layout=layout,
            trust_foreign=trust_foreign,
            tenant=tenant,
            takes_params=not self._connection.in_memory,
            takes_formulas=self._connection.remote,
        )
        self.location = self._connection.location
        self.name = collection
        self.space = space
        self.tenant = tenant

    def close(self) -> None:
        """Release the connection or the folder; a client that was passed in stays open."""
        self._connection.close()
        self._collection.opened = None

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Abilities of this Qdrant; `frames` is of the collection, once that was opened."""
        indexed = not self._connection.in_memory
        return Capabilities(
            remote=self._connection.remote,
            frames=self._collection.opened is None or self._collection.has_frames,
            tenants=True,
            aliases=self._connection.remote,
            index=indexed,
            options=indexed,
            bias=True,
            texts=True,
        )

    @property
    def client(self) -> QdrantBase:
        """Qdrant client behind the store, for operations that this class does not offer.

        For a folder it is an `EdgeClient`, which has the methods of a `QdrantClient` that make sense there.

        Raises:
            StoreError: the folder holds no store, or another process has it open.
        """
        return self._connection.client

    @property
    def place(self) -> object:
        """Object that is equal for stores in the same server, folder or memory, as far as addresses tell."""
        return self._connection.place

    def translate_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the client into a `StoreError` that names the remedy."""
        return self._connection.translate_errors()

    def send(self, request: Request[T]) -> T:
        """Make a request, and repeat it while a server is away, restarts, hangs or is overloaded."""
        return self._connection.send(request)

    def scroll(self, request: Scroll) -> Iterator[list[models.Record]]:
        """Read all points of a request, a page at a time, as long as a write waits for a server that is away."""
        request = replace(request, limit=min(request.limit, Limits.of(self._info()).hits))
        while True:
            records, offset = self.send(request)
            yield records
            if offset is None:
                return
            request = replace(request, offset=offset)

    def metadata(self) -> CollectionMetadata | None:
        """Return the description that the collection carries; None where something else made it (foreign).

        Raises:
            StoreError: no such collection, metadata of a newer version, or the server cannot be reached.
        """
        return self._connection.run(self._collection.reading_metadata(self.collection))

    def resolve(self) -> str | None:
        """Look up which collection the name means now; None if there is none.

        Raises:
            StoreError: the server cannot be reached.
        """
        if not self._connection.exists():
            return None
        target = self._connection.run(self._collection.resolving())
        return target if self.send(CollectionExists(collection_name=target)) else None

    def open(self) -> EmbeddingSpace:
        """Check the collection, once, and return the embedding space that it is searched in.

        Raises:
            StoreError: the collection is missing, is foreign and not trusted, has no such vector, or keeps
                tenants apart and none is given.
            SpaceMismatchError: the collection is of another space, or of another width, than the queries.
        """
        return self._connection.run(self._collection.opening(), hurried=True)

    def create(self, metadata: CollectionMetadata, options: BaseModel | None = None) -> None:
        """Make the collection with its metadata; one that exists must be the same.

        Args:
            metadata: description of how the vectors are made.
            options: options of a new collection, `CollectionOptions`.

        Raises:
            InputError: a name that no collection has, segments that cannot be cut, or options that the place has
                not: memory has none, a folder no shards and replicas.
            SpaceMismatchError: the collection, or the queries' `space`, is of another space.
            StoreError: the collection exists with other segments or options, is foreign, or cannot be created.
        """
        if self.space is not None:
            self.space.video.require(metadata.space.video, mine="the query", theirs="the videos to be stored")
        metadata.require_possible()
        if self.tenant is not None and not metadata.tenants:
            raise InputError(
                f"a collection for the tenant {self.tenant!r} keeps tenants apart: its metadata say tenants=True."
            )
        if options is not None and not isinstance(options, CollectionOptions):
            raise InputError(f"options are {type(options).__name__}; Qdrant's are CollectionOptions.")
        if options is not None and self._connection.in_memory:
            raise InputError("options of a collection are for a server or a folder; memory has none.")
        if options is not None and self._connection.folder is not None:
            options.require_one_copy(self.location)
        if not is_collection_name(self.name):
            raise InputError(f"a collection cannot be called {self.name!r}: {NAME_RULE}.")
        self._connection.make_folder()
        existing = self.resolve()
        if self._collection.opened is None:
            self._collection.target = existing or self.name
        if existing is None and make_collection(self._connection, self.collection, metadata, options):
            if self.metadata() is None:
                refuse_old_server(self._connection, self.collection)
        else:
            metadata.require_same(self.metadata(), self.collection, self.tenant)
            if options is not None:
                require_kept_as(options, self._info(), self.collection)
            if self._connection.remote:
                resume_indexing(self._connection, self.collection)
        index_payload(self._connection, self.collection, tenants=metadata.tenants)

    def _info(self) -> models.CollectionInfo:
        return self.send(GetCollection(collection_name=self.collection))

    @contextmanager
    def bulk_load(self, *, progress: bool = True) -> Iterator[None]:
        """Put off a server's index while much is stored, and build it once at the end.

        Until then searches compare with every segment. The end waits for the index; whoever does not want to wait
        may leave, the server goes on. After a kill, the next run lets the server build it.

        Args:
            progress: show how much is indexed.
        """
        if not self._connection.remote:
            yield
            return
        with index_put_off(self._connection, self.collection, progress=progress):
            yield

    def finish(self) -> None:
        """Index the points that were written since the last call; a server indexes by itself, a folder here.

        Raises:
            StoreError: too little free space: the new index lies beside the old one until it is complete.
        """
        client = self.client
        if isinstance(client, QdrantClient):
            return
        from dits_adapter.stores.qdrant.edge._client import EdgeClient

        assert isinstance(client, EdgeClient)
        with self.translate_errors():
            client.optimize(self.collection)

    def find(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Search for checked queries, (n, d) float32; a re-ranking by "maxsim" is the server's."""
        return self._connection.run(finding(self._collection, queries, request), hurried=True)

    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        """Read stored segments of the store's tenant, in any order; those that are not there are left out.

        While a server is away, a whole reading waits as long as a write; segments chosen by their ids, or the
        first few, as long as a search, since somebody waits for them.
        """
        hurried = request.ids is not None or request.limit is not None
        self._connection.run(self._collection.opening(), hurried=hurried)
        for part in request.parts(self._collection.limits.values):
            offset, read = None, 0
            while True:
                segments, offset = self._connection.run(
                    self._collection.reading(part, offset, read), hurried=hurried
                )
                yield from segments
                read += len(segments)
                if offset is None:
                    break

    def count(self) -> int:
        """Return the number of segments in the collection, about that where strict mode forbids exact counts."""
        return self._connection.run(self._collection.counting(), hurried=True)

    def count_videos(self) -> int:
        """Return the number of whole videos, as `VideoStore.count_videos`.

        In a collection of another program a payload index on the video field (keyword, uuid or integer) spares a
        server's points from being read through.
        """
        return self._connection.run(self._collection.counting_videos(), hurried=True)

    def _require_tenant(self) -> None:
        self._connection.run(self._collection.requiring_tenant())

    def records(self) -> list[VideoRecord]:
        """List the state of each video and of each file that failed, by reading all payloads.

        Raises:
            StoreError: there is no such collection, or it keeps tenants apart and none is given; likewise `delete`
                and `update_path`.
        """
        return self._records()

    def failures(self) -> list[FailureRow]:
        """List the files that failed, by the payloads of their points alone.

        Raises:
            StoreError: as `records`.
        """
        return failure_rows(self._records(models.Filter(must=[is_failure()])))

    def _records(self, condition: models.Filter | None = None) -> list[VideoRecord]:
        self._require_tenant()
        request = Scroll(
            collection_name=self.collection,
            scroll_filter=self.scoped(condition),
            limit=PAGE,
            with_payload=["video_id", "path", "size", "mtime_ns", "segments", FAILURE],
        )
        return video_records(point.payload or {} for points in self.scroll(request) for point in points)

    def write(self, rows: Sequence[SegmentRow]) -> None:
        """Store segments and wait until they are there; those of the same id are replaced."""
        self.write_points([segment_point(row, tenant=self.tenant) for row in rows])

    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        """Remember files that gave no frames; one failure a path."""
        self.write_points([failure_point(row, tenant=self.tenant) for row in rows])

    def write_points(self, points: Sequence[models.PointStruct]) -> None:
        """Store points of your own making, as `write` does, in requests that the server takes for their size."""
        self._connection.run(storing(self.collection, points))

    def delete(self, records: Sequence[VideoRecord]) -> None:
        """Delete all points of these videos and failures."""
        self._require_tenant()
        videos = [record.video_id for record in records if not record.failure]
        failures = [record.path for record in records if record.failure]
        most = min(_DELETE, Limits.of(self._info()).values)
        conditions = [models.Filter(must=[_is_any("video_id", ids)]) for ids in _chunks(videos, most)]
        conditions += [
            models.Filter(must=[_is_any("path", paths), is_failure()]) for paths in _chunks(failures, most)
        ]
        for condition in conditions:
            selector = models.FilterSelector(filter=self._collection.scoped(condition))
            self.send(Delete(collection_name=self.collection, points_selector=selector))

    def update_path(self, file: VideoFile) -> None:
        """Write down that the stored video `file.video_id` now lies at `file.path`, with its size and time."""
        self._require_tenant()
        payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, WORDS: words_of(file.path)}
        video = self._collection.scoped(models.Filter(must=[_is_any("video_id", [file.video_id])]))
        self.send(SetPayload(collection_name=self.collection, payload=payload, points=video))

    def find_said(self, texts: Sequence[str], request: SearchRequest) -> list[list[Hit]]:
        """Search for texts in what is said, by their sparse vectors; here in a collection that has none.

        Raises:
            StoreError: also for a filter on a collection without these vectors.
        """
        self.open()
        if self._collection.has_said:
            return self._connection.run(finding_said(self._collection, texts, request), hurried=True)
        if request.filter:
            raise StoreError(f"{without_said(self._collection)}, or leave out the filter.")
        return super().find_said(texts, request)

    def _fused(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        if self._collection.has_said:
            return self._connection.run(fusing(self._collection, queries, request), hurried=True)
        return super()._fused(queries, request)

    def set_bias(self, bias: ScoreBias | None) -> None:
        """Write down the record of the score bias; None takes it away, with the biases of all segments."""
        self._describe(bias=bias)
        if bias is None:
            self.send(DeletePayload(collection_name=self.collection, keys=[BIAS], points=models.Filter()))

    def set_texts(self, texts: TextLane | None) -> None:
        """Write down the record of the texts beside segments; None takes it away, with all of them."""
        metadata = self._describe(texts=texts)
        if texts is not None and texts.revision == UNFINISHED and metadata.tenants:
            warn_of_shared_idf(self._connection, self.name)
        if texts is None:
            self.send(DeletePayload(collection_name=self.collection, keys=[SAID], points=models.Filter()))
            self.open()
            if self._collection.has_said:
                self.send(DeleteVectors(collection_name=self.collection, vectors=[SAID], points=models.Filter()))

    def _describe(self, **records: Any) -> CollectionMetadata:
        """Change records of the collection's metadata, and return how it was."""
        metadata = self.metadata()
        if metadata is None:
            raise StoreError(
                f"the collection {self.name!r} is of another program; describe it first (dits-adapter adopt)."
            )
        described = {METADATA_KEY: metadata.model_copy(update=records).model_dump(mode="json")}
        self.send(UpdateCollection(collection_name=self.collection, metadata=described))
        self._collection.opened = None
        return metadata

    def write_biases(self, biases: Mapping[str | int, float]) -> None:
        """Keep b(v) beside the segments with these ids."""
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={BIAS: value}, points=[id_]))
            for id_, value in biases.items()
        ]
        if operations:
            self.send(BatchUpdate(collection_name=self.collection, update_operations=operations))

    def write_texts(self, texts: Mapping[str | int, str | None]) -> None:
        """Keep texts beside the segments with these ids, with their sparse vectors; None takes one away."""
        self.open()
        operations = text_operations(texts, self._collection)
        if operations:
            self.send(BatchUpdate(collection_name=self.collection, update_operations=operations))


def _chunks(values: list[str], most: int) -> Iterator[list[str]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]


def _is_any(field: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=values))
