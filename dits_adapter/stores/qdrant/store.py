"""Video segments in a Qdrant collection: made, stamped with their embedding space, filled and searched."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from numpy.typing import ArrayLike
from qdrant_client import QdrantClient, models
from qdrant_client.client_base import QdrantBase
from tqdm import tqdm

from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.qdrant.connection import Connection
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.query import (
    CANDIDATES,
    Reranker,
    SearchedCollection,
    SearchRequest,
    foreign_collection,
)
from dits_adapter.stores.qdrant.schema import (
    FRAMES,
    METADATA_KEY,
    POOLED,
    TENANT,
    CollectionMetadata,
    Hit,
    Record,
    VideoFile,
)

if TYPE_CHECKING:
    from dits_adapter.stores.report import IngestReport
    from dits_adapter.video.encoder import VideoEncoder

T = TypeVar("T")

SCROLL = 1000

DELETE = 250
"""Videos deleted by one request."""

INDEXING_THRESHOLD = 10_000
"""Kilobytes of vectors from which Qdrant indexes a part of its storage: its default, for after a bulk load."""


def collection_space(client: QdrantBase, collection: str) -> EmbeddingSpace:
    """Return the embedding space that a collection is stamped with.

    Raises:
        StoreError: no such collection, or it carries no stamp.
    """
    stamp = QdrantStore(client, collection).metadata()
    if stamp is None:
        raise StoreError(foreign_collection(collection))
    return stamp.space


class QdrantStore:
    """A collection of video segments in a Qdrant server, a folder, or memory.

    Args:
        location: a server's URL, a folder (Qdrant's engine in this process), ":memory:", or a `QdrantClient` of
            your own, which is used as it is and never closed. For a URL the API key comes from the environment
            variable QDRANT_API_KEY.
        collection: its name, or an alias.
        space: the embedding space of the queries; if given, a collection of another one is refused when it is
            opened.
        vector: the vector that is searched; "" is the unnamed one.
        video_field: payload field that says which video a point belongs to, for grouping. By default `video_id`
            in a collection made here, and none (every point is a video) in a foreign one.
        trust_foreign: search a collection that something else made, without proof that its vectors live in
            `space`. Only the width can be checked then: another CLIP of the same width gives wrong results
            without an error.
        tenant: whose videos to store and to search, in a collection that keeps tenants apart; nobody sees, and
            nothing deletes, those of another one. A new collection that is ingested into with a tenant is such a
            collection.

    An alias is looked up when the collection is opened; what is opened then is searched until it is gone, even if
    the alias is switched to another collection meanwhile.

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
        trust_foreign: bool = False,
        tenant: str | None = None,
    ) -> None:
        self._connection = Connection(location)
        self._searched = SearchedCollection(
            self.location,
            collection,
            space=space,
            vector=vector,
            video_field=video_field,
            trust_foreign=trust_foreign,
            tenant=tenant,
            takes_params=not self._connection.in_memory,
        )

    def __enter__(self) -> QdrantStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection or the folder; a client that was passed in stays open."""
        self._connection.close()
        self._searched.opened = None

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
    def collection(self) -> str:
        """The collection, once it is known what an alias means."""
        return self._searched.target

    @property
    def name(self) -> str:
        """The collection as it was given: its name, or an alias."""
        return self._searched.collection

    @property
    def vector(self) -> str:
        """The vector that is searched."""
        return self._searched.vector

    @property
    def tenant(self) -> str | None:
        """Whose videos are stored and searched."""
        return self._searched.tenant

    @property
    def cosine(self) -> bool:
        """Whether scores are cosines, once it was opened."""
        return self._searched.cosine

    @property
    def remote(self) -> bool:
        """Whether it is on a server."""
        return self._connection.remote

    @property
    def place(self) -> object:
        """Equal for stores in the same server, folder or memory, as far as their addresses tell."""
        return self._connection.place

    @property
    def in_memory(self) -> bool:
        """Whether it is in memory, where every search is exact."""
        return self._connection.in_memory

    def translate_errors(self) -> AbstractContextManager[None]:
        """Turn what the client raises into a StoreError that says what to do."""
        return self._connection.translate_errors()

    def with_retry(self, request: Callable[[], T]) -> T:
        """Make a request that may be made twice, and wait while a server restarts or is overloaded."""
        return self._connection.with_retry(request)

    def metadata(self) -> CollectionMetadata | None:
        """Return what the collection says about itself; None if it was not made here.

        Raises:
            StoreError: no such collection, a stamp of a newer version, or the server cannot be reached.
        """
        return self._connection.run(self._searched.reading_metadata(self.collection))

    def resolve(self) -> str | None:
        """Look up which collection the name means now; None if there is none.

        Raises:
            StoreError: the server cannot be reached.
        """
        if not self._connection.is_there():
            return None
        target = self._connection.run(self._searched.resolving())
        with self.translate_errors():
            return target if self.client.collection_exists(target) else None

    def open(self) -> EmbeddingSpace:
        """Check the collection, once, and return the embedding space that it is searched in.

        Raises:
            StoreError: it is missing, is foreign and not trusted, has no vector of the name asked for, or keeps
                tenants apart and none is given.
            SpaceMismatchError: it is of another space, or of another width, than the queries.
        """
        return self._connection.run(self._searched.opening())

    def scoped(self, chosen: models.Filter | None = None) -> models.Filter | None:
        """Confine a filter to the store's tenant, for requests of your own through `client`."""
        return self._searched.scoped(chosen)

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
            overlap: of neighboring segments, in seconds.
            options: how a server or a folder keeps it, for a new collection.

        Raises:
            InputError: segments without a length, an overlap that is not shorter than they are, or options that
                the place has not: memory has none, a folder no shards and replicas.
            SpaceMismatchError: the collection, or the queries' `space`, is of another space.
            StoreError: it exists, cut in other segments, kept otherwise or made by something else; or it cannot be
                created.
        """
        if self._searched.space is not None:
            self._searched.space.require(space, mine="the query", theirs="the videos to be stored")
        whole = segment_seconds is None and overlap == 0
        if not whole and (segment_seconds is None or not 0 <= overlap < segment_seconds < math.inf):
            raise InputError(
                f"segment_seconds is {segment_seconds} and overlap is {overlap}; segments have a length, and "
                "overlap by less than it."
            )
        stamp = CollectionMetadata(
            space=space, segment_seconds=segment_seconds, overlap=overlap, tenants=self.tenant is not None
        )
        self.create_from(stamp, options)

    def create_from(self, stamp: CollectionMetadata, options: CollectionOptions | None = None) -> None:
        """Make the collection with the stamp of another one, and otherwise as `create` does."""
        if options is not None and self.in_memory:
            raise InputError("options of a collection are for a server or a folder; memory has none.")
        if options is not None and self._connection.folder is not None:
            options.require_one_copy(self.location)
        self._connection.make_folder()
        there = self.resolve()
        if self._searched.opened is None:
            self._searched.target = there or self.name
        if there is not None:
            self._require_same(stamp)
            self._require_kept_as(options)
            if self.remote and self._indexing_threshold() == 0:  # a bulk load was killed
                self._set_indexing_threshold(INDEXING_THRESHOLD)
        else:
            self._create(stamp, options or CollectionOptions())
        self._index_payload(stamp)

    def _require_same(self, stamp: CollectionMetadata) -> None:
        existing = self.metadata()
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
        if existing.tenants != stamp.tenants:
            raise StoreError(
                f"the collection {self.collection!r} "
                + (
                    "keeps tenants apart: say whose videos these are."
                    if existing.tenants
                    else f"does not keep tenants apart; for {self.tenant!r}, ingest into a new one."
                )
            )

    def _require_kept_as(self, options: CollectionOptions | None) -> None:
        if options is None:
            return
        with self.translate_errors():
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

    def _create(self, stamp: CollectionMetadata, options: CollectionOptions) -> None:
        width = stamp.space.width
        with self.translate_errors():
            self.client.create_collection(
                self.collection,
                vectors_config={
                    POOLED: options.pooled(width, tenants=stamp.tenants),
                    FRAMES: options.frames(width),
                },
                **options.collection(),
                metadata={METADATA_KEY: stamp.model_dump(mode="json")},
            )
            if self.metadata() is None:
                self.client.delete_collection(self.collection)
                raise StoreError(
                    f"{self.location} runs Qdrant {self.client.info().version}, which keeps no collection "
                    "metadata, where the embedding space is written down. Use Qdrant 1.16 or newer."
                )

    def _index_payload(self, stamp: CollectionMetadata) -> None:
        """Make what is missing of the indexes that ingestion and filters need."""
        fields: dict[str, Any] = {"video_id": models.UuidIndexParams(type=models.UuidIndexType.UUID)}
        fields["path"] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
        fields["failure"] = fields["path"]
        fields["duration"] = models.FloatIndexParams(type=models.FloatIndexType.FLOAT)
        fields["segments"] = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER)
        if stamp.tenants:
            kind = models.KeywordIndexType.KEYWORD
            fields[TENANT] = models.KeywordIndexParams(type=kind, is_tenant=True)
        with self.translate_errors(), warnings.catch_warnings():  # memory warns that it has no use for indexes
            warnings.simplefilter("ignore")
            there = self.client.get_collection(self.collection).payload_schema
            for name, params in fields.items():
                if name not in there:
                    self.client.create_payload_index(self.collection, name, params)

    @contextmanager
    def bulk_load(self, *, progress: bool = True) -> Iterator[None]:
        """Let a server put off its index while much is stored, and build it once at the end.

        Until then searches compare with every segment. The end waits for the index; whoever does not want to wait
        may leave, the server goes on. After a kill, the next run lets the server build it.

        Args:
            progress: show how much is indexed.
        """
        if not self.remote:
            yield
            return
        usual = self._indexing_threshold() or INDEXING_THRESHOLD
        self._set_indexing_threshold(0)
        try:
            yield
        except BaseException:
            with suppress(StoreError):  # the server may be what failed; the next run does it then
                self._set_indexing_threshold(usual)
            raise
        self._set_indexing_threshold(usual)
        with tqdm(desc=f"{self.collection}: index", unit="vector", disable=not progress) as bar:
            while True:
                with self.translate_errors():
                    info = self.client.get_collection(self.collection)
                bar.total, bar.n = info.points_count, min(info.indexed_vectors_count or 0, info.points_count or 0)
                bar.refresh()
                if info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.RED):
                    return
                time.sleep(0.5)

    def _indexing_threshold(self) -> int | None:
        with self.translate_errors():
            return self.client.get_collection(self.collection).config.optimizer_config.indexing_threshold

    def _set_indexing_threshold(self, kilobytes: int) -> None:
        diff = models.OptimizersConfigDiff(indexing_threshold=kilobytes)
        with self.translate_errors():
            self.client.update_collection(self.collection, optimizers_config=diff)

    def build_index(self) -> None:
        """Index what was written since the last time. A server does that by itself; in a folder, ingestion does.

        Raises:
            StoreError: too little free space: the new index lies beside the old one until it is complete.
        """
        client = self.client
        if isinstance(client, QdrantClient):
            return
        from dits_adapter.stores.qdrant.edge.client import EdgeClient

        assert isinstance(client, EdgeClient)
        with self.translate_errors():
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
        bulk: bool = False,
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
            bulk=bulk,
            options=options,
            progress=progress,
        )

    def search(
        self,
        query_vector: ArrayLike,
        *,
        limit: int = 10,
        per_video: int = 1,
        offset: int = 0,
        query_filter: models.Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        rerank: Literal["maxsim"] | Reranker | None = None,
        candidates: int = CANDIDATES,
        locate: bool = True,
    ) -> list[Hit]:
        """Find the segments nearest to a query.

        Args:
            query_vector: (d,), from `DITSQueryEncoder.encode_query`; its norm does not matter.
            limit: how many videos.
            per_video: how many segments of each.
            offset: how many of the best videos to leave out, for the next page. A page costs what all before it
                cost.
            query_filter: a Qdrant filter on the payload.
            min_score: similarity of query and pooled vector that a segment must have; `Calibration.score_of` gives
                that of a probability.
            exact: compare the query with every segment instead of following the index.
            rerank: order the best segments anew by their frames. "maxsim": by the frame that is nearest to the
                query, in the server. A function, such as `DITSQueryEncoder.xpool_reranker` returns: by what it
                makes of their frame vectors, a list of (frames, d). The score is theirs then.
            candidates: how many segments to re-rank at most: the `per_video` best of as many videos as that
                makes, or more of each where there are fewer videos. Videos of fewer segments leave places empty.
            locate: find the moment that matches best (`Hit.timestamp`), for which the hits' frame vectors are
                read: a dozen times what a hit takes otherwise.

        Returns:
            Best video first, and its best segment first.

        Raises:
            InputError: the vector is not (d,), or not finite, or zero; or an argument outside its range.
            StoreError, SpaceMismatchError: as `open`; no frame vectors to re-rank with; or the server cannot be
                reached.
        """
        ask = SearchRequest(limit, per_video, offset, query_filter, min_score, exact, rerank, candidates, locate)
        return self._connection.run(self._searched.searching_one(query_vector, ask))

    def search_batch(
        self,
        query_vectors: ArrayLike,
        *,
        limit: int = 10,
        per_video: int = 1,
        offset: int = 0,
        query_filter: models.Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        rerank: Literal["maxsim"] | None = None,
        candidates: int = CANDIDATES,
        locate: bool = True,
    ) -> list[list[Hit]]:
        """Search for many queries, (n, d), in few requests; otherwise as `search`.

        Returns:
            For each query what `search` returns for it.
        """
        ask = SearchRequest(limit, per_video, offset, query_filter, min_score, exact, rerank, candidates, locate)
        return self._connection.run(self._searched.searching(query_vectors, ask))

    def request(self, method: str, **arguments: Any) -> Any:
        """Read from the collection by a method of the client, as searches do: patiently, and true to an alias.

        Args:
            method: of `QdrantClient`, such as "scroll" or "retrieve".
            arguments: of the method, without the collection's name. Filters are confined by `within`.

        Raises:
            StoreError, SpaceMismatchError: as `search`.
        """
        return self._connection.run(self._searched.requesting(method, arguments))

    def count(self) -> int:
        """Return how many segments the collection holds."""
        return self._connection.run(self._searched.counting())

    def count_videos(self) -> int:
        """Return how many videos the collection holds whole; one that was not made here has one a segment."""
        return self._connection.run(self._searched.counting_videos())

    def _require_tenant(self) -> None:
        self._connection.run(self._searched.requiring_tenant())

    def records(self) -> list[Record]:
        """List what the collection knows of each video and of each file that failed, by reading all payloads.

        Raises:
            StoreError: there is no such collection, or it keeps tenants apart and none is given; likewise `forget`
                and `relocate`.
        """
        self._require_tenant()
        videos: dict[str, Record] = {}
        failures: list[Record] = []
        fields = ["video_id", "path", "size", "mtime_ns", "segments", "failure"]
        offset = None
        while True:
            points, offset = self.with_retry(
                partial(
                    self.client.scroll,
                    self.collection,
                    self.scoped(),
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
                if not {"video_id", "path", "size", "mtime_ns"} <= payload.keys():  # somebody else put it here
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
            self.with_retry(lambda: self.client.upsert(self.collection, points, wait=True))

    def delete(self, records: Sequence[Record]) -> None:
        """Delete all points of these videos and failures."""
        self._require_tenant()
        videos = [record.video_id for record in records if not record.failure]
        failures = [record.path for record in records if record.failure]
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key="failure"))
        chosen = [models.Filter(must=[_is_any("video_id", ids)]) for ids in _chunks(videos)]
        chosen += [models.Filter(must=[_is_any("path", paths)], must_not=[empty]) for paths in _chunks(failures)]
        for one in chosen:
            selector = models.FilterSelector(filter=self._searched.scoped(one))
            self.with_retry(partial(self.client.delete, self.collection, selector, wait=True))

    def update_path(self, file: VideoFile) -> None:
        """Write down that a stored video now lies at `file`."""
        self._require_tenant()
        payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns}
        video = self._searched.scoped(models.Filter(must=[_is_any("video_id", [file.video_id])]))
        self.with_retry(lambda: self.client.set_payload(self.collection, payload, points=video, wait=True))


def _chunks(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), DELETE):
        yield values[start : start + DELETE]


def _is_any(field: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=values))


def _cut(stamp: CollectionMetadata) -> str:
    if stamp.segment_seconds is None:
        return "whole videos"
    return f"segments of {stamp.segment_seconds:g} s overlapping by {stamp.overlap:g} s"
