"""A folder as a Qdrant: Qdrant Edge, the server's engine in this process, behind the methods of `QdrantClient`.

    FOLDER/qdrant-edge.lock     says that this is a store, and is locked by the process that has it open
    FOLDER/NAME/collection.json how the collection NAME is kept, and its metadata
    FOLDER/NAME/optimized       is there if nothing was written since the index was built
    FOLDER/NAME/…               what the engine writes: segments, and a log of the latest writes

A write returns when it is on disk: the engine alone promises that only for its log, which it does not always read
again, so every write is flushed (8 ms, however large the collection). A collection appears and disappears as a
whole. The index is built by `optimize`, and never by itself; until then new points are compared one by one.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import portalocker
import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions.common_types import QueryResponse

from dits_adapter.errors import DITSError, InputError, StoreError
from dits_adapter.stores.qdrant._schema import group_values, matching
from dits_adapter.stores.qdrant.edge import _convert as convert
from dits_adapter.stores.qdrant.edge._collection import (
    COLLECTION,
    LOCK,
    EdgeCollection,
    size_on_disk,
    sync_folder,
    write_collection_config,
)

NEW, GONE = ".new", ".gone"
"""Folders of a collection that is being made or deleted; what is found there is of a process that was killed."""

RESERVE = 64 << 20
"""Bytes left free on the disk. The engine writes through memory maps, and a process that does so on a full disk is
killed on the spot: better to stop a little earlier, with a sentence. A server keeps as much free for its log."""

FORBIDDEN = '<>:"/\\|?*'
"""In names of collections, as on a server, and with it on every file system."""

HARMLESS = ("wait", "timeout", "ordering", "consistency")
"""What callers tell a server and a folder does anyway: each write is waited for and comes in its turn."""

DONE = models.UpdateResult(operation_id=None, status=models.UpdateStatus.COMPLETED)


def is_store(folder: Path) -> bool:
    """Whether a folder holds a store of this kind, perhaps an empty one."""
    return (folder / LOCK).is_file()


class EdgeClient(QdrantBase):
    """The collections of a folder. One process at a time has it open; its threads may do whatever they like.

    Methods take and return what those of `QdrantClient` do; those that are missing raise NotImplementedError.
    Whatever a folder cannot do (sparse vectors, shards, replicas, aliases) is refused by its name.

    Args:
        folder: made if it is missing.

    Raises:
        StoreError: another process has it open, or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._open: dict[str, EdgeCollection] = {}
        self._guard = threading.RLock()
        self._closed = False
        self._lock = portalocker.Lock(folder / LOCK, "a", timeout=0, fail_when_locked=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for leftover in (folder / NEW, folder / GONE):
                shutil.rmtree(leftover, ignore_errors=True)
        except portalocker.exceptions.LockException:
            raise StoreError(
                f"{folder} is open in another process, or elsewhere in this one, and an embedded store lets only "
                "one in. Close the other, or run a Qdrant server and give its URL."
            ) from None
        except OSError as error:
            self._lock.release()
            raise StoreError(
                f"{folder}: cannot be opened for writing ({error}), which a folder needs even to be searched. "
                "Check its permissions and the free space, or copy it elsewhere."
            ) from error

    def close(self, **kwargs: Any) -> None:
        """Write down what is left and let others in; waits for what other threads have under way."""
        with self._guard:
            self._closed = True
            while self._open:
                self._open.popitem()[1].close()
            self._lock.release()

    def info(self) -> models.VersionInfo:
        """Return the engine's version."""
        return models.VersionInfo(title="Qdrant Edge", version=version("qdrant-edge-py"))

    # --- collections ---

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """List the collections."""
        names = sorted(path.parent.name for path in self.folder.glob(f"*/{COLLECTION}"))
        return models.CollectionsResponse(collections=[models.CollectionDescription(name=name) for name in names])

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Whether there is such a collection."""
        return _is_name(collection_name) and (self.folder / collection_name / COLLECTION).is_file()

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Return how a collection is kept, and how far its index is."""
        with self._use(collection_name) as collection:
            info = collection.shard.info()
            return models.CollectionInfo(
                status=models.CollectionStatus.GREEN,
                optimizer_status=models.OptimizersStatusOneOf.OK,
                points_count=info.points_count,
                indexed_vectors_count=info.indexed_vectors_count,
                segments_count=info.segments_count,
                config=collection.config,
                payload_schema={name: convert.index_info(found) for name, found in info.payload_schema.items()},
            )

    def create_collection(
        self,
        collection_name: str,
        vectors_config: models.VectorParams | Mapping[str, models.VectorParams] | None = None,
        *,
        hnsw_config: models.HnswConfigDiff | None = None,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        metadata: dict[str, Any] | None = None,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        **kwargs: Any,
    ) -> bool:
        """Make a collection, as a whole or not at all."""
        asked = {"shard_number": shard_number, "replication_factor": replication_factor}
        asked |= {"write_consistency_factor": write_consistency_factor}
        for name, value in [*((n, v) for n, v in asked.items() if v != 1), *kwargs.items()]:
            if value is not None:
                raise InputError(
                    f"a folder has no {name}: it is one shard, in one copy. A Qdrant server has them."
                )
        if not _is_name(collection_name):
            raise InputError(
                f"a collection cannot be called {collection_name!r}: a name has 1 to 255 bytes, does not begin "
                f"with a dot, and has none of {FORBIDDEN} in it."
            )
        vectors = vectors_config if isinstance(vectors_config, models.VectorParams) else dict(vectors_config or {})
        config = models.CollectionConfig(
            params=models.CollectionParams(vectors=vectors, shard_number=1, replication_factor=1),
            hnsw_config=_changed(convert.HNSW, hnsw_config),
            optimizer_config=_changed(
                models.OptimizersConfig(default_segment_number=0, flush_interval_sec=0), optimizers_config
            ),
            quantization_config=quantization_config,
            metadata=metadata,
        )
        with self._guard, self._translate_errors(collection_name):
            if self.collection_exists(collection_name):
                raise StoreError(f"{self.folder} has a collection {collection_name!r} already.")
            self._require_space()
            started = self.folder / NEW
            started.mkdir()
            try:
                shard = edge.EdgeShard.create(str(started), convert.config(config))
                shard.flush()
                shard.close()
                write_collection_config(started, config)
                os.rename(started, self.folder / collection_name)
                sync_folder(self.folder)
            except BaseException:
                shutil.rmtree(started, ignore_errors=True)
                raise
        return True

    def update_collection(
        self,
        collection_name: str,
        *,
        vectors_config: Mapping[str, models.VectorParamsDiff] | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        quantization_config: models.QuantizationConfig | models.Disabled | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Keep a collection otherwise from now on, and build its index accordingly before returning.

        With an `indexing_threshold` of 0 no index is built until another is given: for many writes in a row.
        """
        _harmless(kwargs)
        with self._use(collection_name, alone=True) as collection:
            config = collection.config.model_copy(deep=True)
            vectors = config.params.vectors
            named = vectors if isinstance(vectors, dict) else {"": vectors}
            for name, change in (vectors_config or {}).items():
                if named.get(name) is None:
                    raise InputError(f"the collection {collection_name!r} has no vector {name!r}.")
                named[name] = _changed(named[name], change)
            if not isinstance(vectors, dict):
                config.params.vectors = named[""]
            config.hnsw_config = _changed(config.hnsw_config, hnsw_config)
            config.optimizer_config = _changed(config.optimizer_config, optimizers_config)
            if quantization_config is not None:
                disabled = quantization_config == models.Disabled.DISABLED
                config.quantization_config = None if disabled else quantization_config  # type: ignore[assignment]
            config.metadata = {**(config.metadata or {}), **(metadata or {})} or None
            collection.reopen(config)
        if any(part is not None for part in (vectors_config, hnsw_config, optimizers_config, quantization_config)):
            self.optimize(collection_name)
        return True

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Delete a collection; False if there is none of the name."""
        with self._guard, self._translate_errors(collection_name):
            if not self.collection_exists(collection_name):
                return False
            if (collection := self._open.pop(collection_name, None)) is not None:
                collection.close()
            os.rename(self.folder / collection_name, self.folder / GONE)
            shutil.rmtree(self.folder / GONE)
        return True

    def get_aliases(self, **kwargs: Any) -> models.CollectionsAliasesResponse:
        """Return none: a folder has no aliases."""
        return models.CollectionsAliasesResponse(aliases=[])

    def update_collection_aliases(self, change_aliases_operations: Any, **kwargs: Any) -> bool:
        """Refused: a folder has no aliases."""
        raise StoreError(
            f"{self.folder}: a folder has no aliases; a Qdrant server has. Use the collection's name."
        )

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: Any = None,
        field_type: Any = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Index a payload field."""
        _harmless(kwargs, field_type=field_type)
        if field_schema is None:
            raise InputError(f"the index of {field_name!r} needs a field_schema: what the field holds.")
        operation = edge.UpdateOperation.create_field_index(field_name, convert.index(field_schema))
        return self._write(collection_name, operation)

    def optimize(self, collection_name: str) -> bool:
        """Index what was written since the last time, and drop what was deleted; searches go on meanwhile.

        Returns:
            Whether there was anything to do. Below the collection's `indexing_threshold` there is not: a few
            thousand points are compared faster than an index is built.

        Raises:
            StoreError: too little free space: the new index lies beside the old one until it is complete.
        """
        with self._use(collection_name) as collection, collection.optimizing:
            if collection.optimized:  # and whatever room another index would need is not needed
                return False
            self._require_space(
                size_on_disk(collection.folder / "segments"),
                " to bring the index up to date; all that is stored is found without it, only slower",
            )
            with collection.marking_optimized():
                changed = bool(collection.shard.optimize())
                collection.shard.flush()
            return changed

    # --- points ---

    def upsert(self, collection_name: str, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Store points; those of the same id are replaced.

        Raises:
            InputError: a vector that holds NaN or infinite values, or an id that is none.
        """
        _harmless(kwargs)
        operation = edge.UpdateOperation.upsert_points([convert.point(point) for point in points])
        return self._write(collection_name, operation)

    def delete(self, collection_name: str, points_selector: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete points, by a filter or by their ids."""
        _harmless(kwargs)
        chosen = _chosen(points_selector)
        if isinstance(chosen, edge.Filter):
            return self._write(collection_name, edge.UpdateOperation.delete_points_by_filter(chosen))
        return self._write(collection_name, edge.UpdateOperation.delete_points(chosen))

    def set_payload(
        self,
        collection_name: str,
        payload: Mapping[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Set some payload fields of points, chosen by a filter or by their ids."""
        _harmless(kwargs)
        chosen, fields = _chosen(points), dict(payload)
        if isinstance(chosen, edge.Filter):
            return self._write(
                collection_name, edge.UpdateOperation.set_payload_by_filter(chosen, fields, key=key)
            )
        return self._write(collection_name, edge.UpdateOperation.set_payload(chosen, fields, key=key))

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[models.ExtendedPointId],
        with_payload: models.WithPayloadInterface = True,
        with_vectors: bool | Sequence[str] = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Fetch points by their ids; those that are not there are left out."""
        _harmless(kwargs)
        with self._use(collection_name) as collection:
            found = collection.shard.retrieve(
                [convert.point_id(i) for i in ids], convert.payload_selector(with_payload), _names(with_vectors)
            )
        return [convert.record(one) for one in found]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: models.ExtendedPointId | None = None,
        with_payload: models.WithPayloadInterface = True,
        with_vectors: bool | Sequence[str] = False,
        **kwargs: Any,
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        """Fetch points in the order of their ids, and the id at which the next ones begin."""
        _harmless(kwargs, order_by=order_by)
        request = edge.ScrollRequest(
            offset=None if offset is None else convert.point_id(offset),
            limit=limit,
            filter=convert.filter_(scroll_filter),
            with_payload=convert.payload_selector(with_payload),
            with_vector=_names(with_vectors),
        )
        with self._use(collection_name) as collection:
            found, following = collection.shard.scroll(request)
        return [convert.record(one) for one in found], None if following is None else convert.found_id(following)

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **kwargs: Any
    ) -> models.CountResult:
        """Count points."""
        _harmless(kwargs)
        with self._use(collection_name) as collection:
            request = edge.CountRequest(exact=exact, filter=convert.filter_(count_filter))
            return models.CountResult(count=collection.shard.count(request))

    # --- search ---

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: models.Prefetch | list[models.Prefetch] | None = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: models.WithPayloadInterface = True,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        lookup_from: Any = None,
        **kwargs: Any,
    ) -> QueryResponse:
        """Find the points nearest to a vector, or to the vectors of a multivector."""
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=_names(with_vectors),
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        return self.query_batch_points(collection_name, [request], **kwargs)[0]

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[QueryResponse]:
        """Answer several queries in one go."""
        _harmless(kwargs)
        converted = [convert.request(request) for request in requests]
        with self._use(collection_name) as collection:
            answers = collection.shard.query_batch(edge.QueryBatchRequest(converted))
        return [QueryResponse(points=[convert.scored(one) for one in answer]) for answer in answers]

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: models.Prefetch | list[models.Prefetch] | None = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: models.WithPayloadInterface = True,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: Any = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """Find the groups with the points nearest to a vector: the `limit` best, and the best points of each.

        Edge has no groups. Points are asked for until enough groups have one, each time without those that are
        known; then the groups that are short of points are filled. Points without a string or a number in the
        field belong to no group.
        """
        _harmless(kwargs, with_lookup=with_lookup)
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=None,
            params=search_params,
            limit=limit * group_size,
            offset=None,
            with_payload=True,
            with_vector=_names(with_vectors),
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )

        def ask(*conditions: models.Filter) -> models.QueryRequest:
            asked: list[models.Condition] = [*conditions, query_filter] if query_filter else [*conditions]
            return request.model_copy(update={"filter": models.Filter(must=asked)})

        groups: dict[str | int, list[models.ScoredPoint]] = {}
        while True:
            ungrouped = models.IsEmptyCondition(is_empty=models.PayloadField(key=group_by))
            others = models.Filter(must=matching(group_by, groups, but=True), must_not=[ungrouped])
            (answer,) = self.query_batch_points(collection_name, [ask(others)])
            fresh: dict[str | int, list[models.ScoredPoint]] = {}
            for point in answer.points:
                for value in group_values(point.payload, group_by):
                    if value not in groups:
                        fresh.setdefault(value, []).append(point)
            first, complete = not groups, len(answer.points) < limit * group_size
            groups |= fresh
            if complete or not fresh or len(groups) >= limit:
                break
        distance = self._distance(collection_name, using)
        ascending = distance in (models.Distance.EUCLID, models.Distance.MANHATTAN)
        best = sorted(groups, key=lambda value: groups[value][0].score * (1 if ascending else -1))[:limit]
        short = [value for value in best if len(groups[value]) < group_size]
        if short and not (first and complete):
            fill = [ask(models.Filter(must=matching(group_by, [value]))) for value in short]
            fill = [one.model_copy(update={"limit": group_size}) for one in fill]
            for value, more in zip(short, self.query_batch_points(collection_name, fill), strict=True):
                groups[value] = more.points or groups[value]
        hits = {value: groups[value][:group_size] for value in best}
        if with_payload is not True:
            hits = self._with_payload(collection_name, hits, with_payload)
        return models.GroupsResult(groups=[models.PointGroup(id=value, hits=hits[value]) for value in best])

    def _with_payload(
        self,
        collection_name: str,
        groups: dict[str | int, list[models.ScoredPoint]],
        wanted: models.WithPayloadInterface,
    ) -> dict[str | int, list[models.ScoredPoint]]:
        ids = list({point.id for points in groups.values() for point in points})
        payloads = {one.id: one.payload for one in self.retrieve(collection_name, ids, wanted)} if wanted else {}
        return {
            value: [point.model_copy(update={"payload": payloads.get(point.id)}) for point in points]
            for value, points in groups.items()
        }

    def _distance(self, collection_name: str, using: str | None) -> models.Distance | None:
        with self._use(collection_name) as collection:
            vectors = collection.config.params.vectors
        params = vectors.get(using or "") if isinstance(vectors, dict) else vectors
        return params.distance if params else None

    # --- what all of them go through ---

    @contextmanager
    def _use(self, name: str, *, alone: bool = False) -> Iterator[EdgeCollection]:
        """Open a collection where it is not, and keep it open meanwhile."""
        with self._translate_errors(name):
            with self._guard:
                if self._closed:
                    raise StoreError(f"{self.folder} is closed.")
                if (collection := self._open.get(name)) is None:
                    if not self.collection_exists(name):
                        raise StoreError(f"{self.folder} has no collection {name!r}.")
                    collection = self._open[name] = EdgeCollection(self.folder / name)
            with collection.inside(alone=alone):
                yield collection

    def _write(self, name: str, operation: edge.UpdateOperation) -> models.UpdateResult:
        with self._use(name) as collection:
            self._require_space()
            collection.unmark()
            collection.shard.update(operation)
            collection.shard.flush()
        return DONE

    def _require_space(self, more: int = 0, purpose: str = "") -> None:
        free = shutil.disk_usage(self.folder).free
        if free < RESERVE + more:
            raise StoreError(
                f"{self.folder}: the disk is full: {free >> 20} MB are free, and {(RESERVE + more) >> 20} MB are "
                f"needed{purpose}. Make space."
            )

    @contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        """Turn what the engine raises into a StoreError that says what to do.

        It raises bare Exceptions, and where it panics something that is derived from BaseException only.
        """
        try:
            yield
        except (DITSError, OSError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self._require_space()
            raise StoreError(
                f"{self.folder}: the collection {name!r} cannot be opened, read or written as asked ({error}). "
                "Unless the request is at fault, its files are damaged: take them from a backup, or delete "
                f"{self.folder / name} and ingest again."
            ) from error


def _harmless(options: Mapping[str, Any], **more: Any) -> None:
    """Take what is about the way to a server, which is short here, and refuse whatever else is asked for."""
    refused = [k for k, v in {**options, **more}.items() if v is not None and k not in HARMLESS]
    if refused:
        raise InputError(f"a folder takes no {', '.join(refused)}; a Qdrant server does.")


def _is_name(name: str) -> bool:
    printable = not any(letter in FORBIDDEN or ord(letter) < 32 for letter in name)
    return printable and not name.startswith(".") and 0 < len(os.fsencode(name)) <= 255


def _names(wanted: bool | Sequence[str]) -> bool | list[str]:
    return wanted if isinstance(wanted, bool) else list(wanted)


def _chosen(selector: Any) -> edge.Filter | list[edge.PointId]:
    if isinstance(selector, models.FilterSelector):
        selector = selector.filter
    if isinstance(selector, models.Filter):
        converted = convert.filter_(selector)
        assert converted is not None
        return converted
    if isinstance(selector, models.PointIdsList):
        selector = selector.points
    if not isinstance(selector, list | tuple):
        selector = [selector]
    return [convert.point_id(one) for one in selector]


def _changed(now: Any, change: Any) -> Any:
    """Take over what a change says, in whatever depth."""
    if change is None:
        return now
    updates: dict[str, Any] = {}
    for name in change.model_fields_set:
        value, old = getattr(change, name), getattr(now, name, None)
        if value == models.Disabled.DISABLED:
            updates[name] = None
        elif value is not None:
            nested = isinstance(value, models.HnswConfigDiff) and old is not None
            updates[name] = _changed(old, value) if nested else value
    return now.model_copy(update=updates)
