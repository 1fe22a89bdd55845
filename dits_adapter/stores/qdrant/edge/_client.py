"""A client of a folder: Qdrant Edge behind the methods of `QdrantClient`.

An index is built by `optimize`, and never by itself; until then new points are compared one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions.common_types import QueryResponse

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.qdrant._schema import named_vectors
from dits_adapter.stores.qdrant.edge import _changes as changes
from dits_adapter.stores.qdrant.edge import _convert as convert
from dits_adapter.stores.qdrant.edge._collection import size_on_disk
from dits_adapter.stores.qdrant.edge._folder import EdgeFolder
from dits_adapter.stores.qdrant.edge._groups import find_groups

__all__ = ["EdgeClient"]

_HARMLESS = ("wait", "timeout", "ordering", "consistency")
"""Options of a connection to a server: a folder waits for each write, and writes come in their turn."""

_DONE = models.UpdateResult(operation_id=None, status=models.UpdateStatus.COMPLETED)


class EdgeClient(QdrantBase):
    """Client of the collections of a folder, which one process at a time has open, with any number of threads.

    Methods take and return what those of `QdrantClient` do; those that are missing raise NotImplementedError.
    Whatever a folder cannot do (shards, replicas, aliases) is refused by its name.

    Args:
        folder: made if it is missing.

    Raises:
        StoreError: another process has it open, or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._folder = EdgeFolder(folder)

    def close(self, **kwargs: Any) -> None:
        """Flush all writes and release the folder, after the requests of other threads."""
        self._folder.close()

    def info(self) -> models.VersionInfo:
        """Return the engine's version."""
        return models.VersionInfo(title="Qdrant Edge", version=version("qdrant-edge-py"))

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """List the collections."""
        names = self._folder.names()
        return models.CollectionsResponse(collections=[models.CollectionDescription(name=name) for name in names])

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Return whether there is such a collection."""
        return self._folder.exists(collection_name)

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Return a collection's configuration, and the state of its index."""
        with self._folder.use(collection_name) as collection:
            info = collection.shard.info()
            return models.CollectionInfo(
                status=models.CollectionStatus.GREEN,
                optimizer_status=models.OptimizersStatusOneOf.OK,
                points_count=info.points_count,
                indexed_vectors_count=info.indexed_vectors_count,
                segments_count=info.segments_count,
                config=collection.config,
                payload_schema={name: convert.index_info(index) for name, index in info.payload_schema.items()},
            )

    def create_collection(
        self,
        collection_name: str,
        vectors_config: models.VectorParams | Mapping[str, models.VectorParams] | None = None,
        *,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
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
        cluster = {"shard_number": shard_number, "replication_factor": replication_factor}
        cluster |= {"write_consistency_factor": write_consistency_factor}
        for name, value in [*((n, v) for n, v in cluster.items() if v != 1), *kwargs.items()]:
            if value is not None:
                raise InputError(
                    f"a folder has no {name}: it is one shard, in one copy. A Qdrant server has them."
                )
        vectors = vectors_config if isinstance(vectors_config, models.VectorParams) else dict(vectors_config or {})
        sparse = dict(sparse_vectors_config) if sparse_vectors_config else None
        params = models.CollectionParams(
            vectors=vectors, sparse_vectors=sparse, shard_number=1, replication_factor=1
        )
        config = models.CollectionConfig(
            params=params,
            hnsw_config=_changed(convert.HNSW, hnsw_config),
            optimizer_config=_changed(
                models.OptimizersConfig(default_segment_number=0, flush_interval_sec=0), optimizers_config
            ),
            quantization_config=quantization_config,
            metadata=metadata,
        )
        self._folder.create(collection_name, config)
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
        """Change the configuration of a collection, and build its index accordingly before returning.

        With an `indexing_threshold` of 0 no index is built until another is given: for many writes in a row.
        """
        _reject_options(kwargs)
        with self._folder.use(collection_name, alone=True) as collection:
            config = collection.config.model_copy(deep=True)
            named = named_vectors(config.params)
            for name, change in (vectors_config or {}).items():
                if named.get(name) is None:
                    raise InputError(f"the collection {collection_name!r} has no vector {name!r}.")
                named[name] = _changed(named[name], change)
            if not isinstance(config.params.vectors, dict):
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
        return self._folder.delete(collection_name)

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
        _reject_options(kwargs, field_type=field_type)
        if field_schema is None:
            raise InputError(f"the index of {field_name!r} needs a field_schema: what the field holds.")
        operation = edge.UpdateOperation.create_field_index(field_name, convert.index(field_schema))
        return self._write(collection_name, operation)

    def optimize(self, collection_name: str) -> bool:
        """Index the points written since the last call, and drop deleted points; searches go on meanwhile.

        Returns:
            Whether there was anything to do. Below the collection's `indexing_threshold` there is not: a few
            thousand points are compared faster than an index is built.

        Raises:
            StoreError: too little free space: the new index lies beside the old one until it is complete.
        """
        with self._folder.use(collection_name) as collection, collection.optimizing:
            if collection.optimized:  # and whatever room another index would need is not needed
                return False
            self._folder.require_space(
                size_on_disk(collection.folder / "segments"),
                " to bring the index up to date; all that is stored is found without it, only slower",
            )
            with collection.marking_optimized():
                changed = bool(collection.shard.optimize())
                collection.shard.flush()
            return changed

    def upsert(self, collection_name: str, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Store points; those of the same id are replaced.

        Raises:
            InputError: a vector that holds NaN or infinite values, or an id that is none.
        """
        _reject_options(kwargs)
        operation = edge.UpdateOperation.upsert_points([convert.point(point) for point in points])
        return self._write(collection_name, operation)

    def delete(self, collection_name: str, points_selector: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete points, by a filter or by their ids."""
        _reject_options(kwargs)
        return self._write(collection_name, changes.deletion(points_selector))

    def set_payload(
        self,
        collection_name: str,
        payload: Mapping[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Set some payload fields of points, chosen by a filter or by their ids."""
        _reject_options(kwargs)
        return self._write(collection_name, changes.payload_change(payload, points, key))

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Delete some payload fields of points, chosen by a filter or by their ids."""
        _reject_options(kwargs)
        return self._write(collection_name, changes.payload_deletion(keys, points))

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[models.UpdateOperation], **kwargs: Any
    ) -> list[models.UpdateResult]:
        """Make several changes of payload and vectors in one go, in their order.

        Raises:
            InputError: a change of something else, or chosen by a filter where that is not taken.
        """
        _reject_options(kwargs)
        operations = [changes.change(operation) for operation in update_operations]
        return [self._write(collection_name, *operations)] * len(operations)

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Delete some vectors of points, chosen by a filter or by their ids."""
        _reject_options(kwargs)
        return self._write(collection_name, changes.vectors_deletion(vectors, points))

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[models.ExtendedPointId],
        with_payload: models.WithPayloadInterface = True,
        with_vectors: bool | Sequence[str] = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Fetch points by their ids; those that are not there are left out."""
        _reject_options(kwargs)
        with self._folder.use(collection_name) as collection:
            records = collection.shard.retrieve(
                [convert.point_id(i) for i in ids], convert.payload_selector(with_payload), _names(with_vectors)
            )
        return [convert.record(record) for record in records]

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
        _reject_options(kwargs, order_by=order_by)
        request = edge.ScrollRequest(
            offset=None if offset is None else convert.point_id(offset),
            limit=limit,
            filter=convert.filter_(scroll_filter),
            with_payload=convert.payload_selector(with_payload),
            with_vector=_names(with_vectors),
        )
        with self._folder.use(collection_name) as collection:
            records, following = collection.shard.scroll(request)
        page = [convert.record(record) for record in records]
        return page, None if following is None else convert.result_id(following)

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **kwargs: Any
    ) -> models.CountResult:
        """Count points."""
        _reject_options(kwargs)
        with self._folder.use(collection_name) as collection:
            request = edge.CountRequest(exact=exact, filter=convert.filter_(count_filter))
            return models.CountResult(count=collection.shard.count(request))

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
        _reject_options(kwargs)
        converted = [convert.request(request) for request in requests]
        with self._folder.use(collection_name) as collection:
            answers = collection.shard.query_batch(edge.QueryBatchRequest(converted))
        return [QueryResponse(points=[convert.scored(point) for point in answer]) for answer in answers]

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

        Points without a string or a number in the field belong to no group; see `find_groups`.
        """
        _reject_options(kwargs, with_lookup=with_lookup)
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit * group_size,
            offset=None,
            with_payload=True,
            with_vector=_names(with_vectors),
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        distance = self._distance(collection_name, using)
        groups = find_groups(
            partial(self.query_batch_points, collection_name),
            request,
            group_by,
            limit=limit,
            group_size=group_size,
            ascending=distance in (models.Distance.EUCLID, models.Distance.MANHATTAN),
        )
        if with_payload is not True:
            groups = self._with_payload(collection_name, groups, with_payload)
        return models.GroupsResult(
            groups=[models.PointGroup(id=value, hits=hits) for value, hits in groups.items()]
        )

    def _with_payload(
        self,
        collection_name: str,
        groups: dict[str | int, list[models.ScoredPoint]],
        selection: models.WithPayloadInterface,
    ) -> dict[str | int, list[models.ScoredPoint]]:
        ids = list({point.id for points in groups.values() for point in points})
        payloads = (
            {record.id: record.payload for record in self.retrieve(collection_name, ids, selection)}
            if selection
            else {}
        )
        return {
            value: [point.model_copy(update={"payload": payloads.get(point.id)}) for point in points]
            for value, points in groups.items()
        }

    def _distance(self, collection_name: str, using: str | None) -> models.Distance | None:
        with self._folder.use(collection_name) as collection:
            vectors = collection.config.params.vectors
        params = vectors.get(using or "") if isinstance(vectors, dict) else vectors
        return params.distance if params else None

    def _write(self, collection_name: str, *operations: edge.UpdateOperation) -> models.UpdateResult:
        self._folder.write(collection_name, operations)
        return _DONE


def _reject_options(options: Mapping[str, Any], **more: Any) -> None:
    """Ignore connection options (wait, timeout, ordering, consistency); reject all others."""
    refused = [k for k, v in {**options, **more}.items() if v is not None and k not in _HARMLESS]
    if refused:
        raise InputError(f"a folder takes no {', '.join(refused)}; a Qdrant server does.")


def _names(selection: bool | Sequence[str]) -> bool | list[str]:
    return selection if isinstance(selection, bool) else list(selection)


def _changed(now: Any, change: Any) -> Any:
    """Apply a change to a configuration, nested ones included."""
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
