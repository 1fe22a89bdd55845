"""Copy of a collection to another place of Qdrant: a folder to a server, a server to a folder, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Set
from itertools import islice

from qdrant_client import models

from dits_adapter._progress import progress_bar
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores._copied import begin_records, same_value, unfinished, write_records
from dits_adapter.stores.qdrant._limits import NUMBER_BYTES, PAYLOAD_BYTES, Limits, fitting
from dits_adapter.stores.qdrant._requests import (
    Count,
    CreatePayloadIndex,
    Delete,
    GetCollection,
    Retrieve,
    Scroll,
)
from dits_adapter.stores.qdrant._schema import FAILURE, POOLED, named_vectors, said_vector
from dits_adapter.stores.qdrant.options import CLUSTER, CollectionOptions
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.text_lane import SAID, TextLane

__all__ = ["BATCH", "copy_points"]

BATCH = 64
"""Points read at once, at most: fewer where their vectors are large."""


def copy_points(source: QdrantStore, destination: QdrantStore, *, progress: bool) -> tuple[int, int, int]:
    """Copy points, vectors, payload, metadata, options and payload indexes; see `copy_collection`.

    Returns:
        How many segments were written, how many were there already, and how many files failed.
    """
    same_place = source.place == destination.place
    if same_place and not source.capabilities.remote:
        raise InputError(
            f"source and destination are both in {source.location}; copy to another folder or server."
        )
    origin = source.resolve()
    metadata = source.metadata()
    if metadata is None or metadata.layout is not None:
        raise StoreError(
            f"the collection {source.collection!r} was made by something else than dits_adapter; Qdrant's own "
            "snapshots copy any collection between servers."
        )
    info = source.send(GetCollection(collection_name=source.collection))
    target, cluster = destination.resolve(), source.capabilities.remote and destination.capabilities.remote
    if same_place and origin == target:
        raise InputError(f"source and destination are both {origin!r} in {source.location}.")
    destination.create(unfinished(metadata), _options(info, cluster=cluster) if target is None else None)
    _leave_no_others(source, destination)
    begin_records(destination, metadata)
    params = _index_alike(info, destination)
    names = {*named_vectors(params), *(params.sparse_vectors or ())}
    total, written, failures = 0, 0, 0
    frames = 1 + (metadata.space.video.frames or 12)
    size = fitting(PAYLOAD_BYTES + NUMBER_BYTES * metadata.space.video.width * frames, BATCH)
    number = _count(source)
    with (
        destination.bulk_load(progress=progress),
        progress_bar(total=number, unit="point", desc=destination.collection, progress=progress) as bar,
    ):
        for records in _pages(source, payload=True):
            copied = {r.id: r.payload for r in _fetch(destination, [r.id for r in records], payload=True)}
            missing = [r for r in records if r.id not in copied or not same_value(r.payload, copied[r.id])]
            failed = [_failed(record) for record in records]
            total, failures = total + len(records), failures + sum(failed)
            written += len(missing) - sum(map(_failed, missing))
            bar.update(len(records) - len(missing))
            queue = iter(missing)
            while ids := [record.id for record in islice(queue, size)]:
                points = [
                    _point(r, metadata.texts, names) for r in _fetch(source, ids, payload=True, vectors=True)
                ]
                destination.write_points(points)
                bar.update(len(points))
    write_records(destination, metadata)
    destination.finish()
    counts = _count(source), _count(destination)
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy is not complete: {source.collection!r} has {counts[0]:,} points and "
            f"{destination.collection!r} has {counts[1]:,}. Was something written meanwhile? Copy again."
        )
    return written, total - failures - written, failures


def _options(info: models.CollectionInfo, *, cluster: bool) -> CollectionOptions:
    """Read the options of the source, its shards and replicas only on the way to another `cluster`."""
    params = info.config.params
    assert isinstance(params.vectors, dict)
    options = CollectionOptions.of(params, params.vectors[POOLED]).model_dump()
    return CollectionOptions(**{k: v for k, v in options.items() if cluster or k not in CLUSTER})


def _leave_no_others(source: QdrantStore, destination: QdrantStore) -> None:
    """Refuse a destination with segments that the source has not; files that failed there are forgotten."""
    for records in _pages(destination, payload=[FAILURE]):
        ids = {record.id for record in records}
        others = ids - {record.id for record in _fetch(source, list(ids))}
        gone = [record.id for record in records if record.id in others and _failed(record)]
        if segments := others - set(gone):
            raise StoreError(
                f"the collection {destination.collection!r} has segments that {source.collection!r} has not, such "
                f"as {min(map(str, segments))}. Copy to another name (--to), or delete that collection first."
            )
        if gone:
            selector = models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=gone)]))
            destination.send(Delete(collection_name=destination.collection, points_selector=selector))


def _failed(record: models.Record) -> bool:
    return FAILURE in (record.payload or {})


def _index_alike(info: models.CollectionInfo, destination: QdrantStore) -> models.CollectionParams:
    """Make the payload indexes of the source that the destination has not; return the destination's parameters."""
    name = destination.collection
    existing = destination.send(GetCollection(collection_name=name))
    for field, index in info.payload_schema.items():
        if field not in existing.payload_schema:
            schema = index.params or index.data_type
            destination.send(CreatePayloadIndex(collection_name=name, field_name=field, field_schema=schema))
    return existing.config.params


def _pages(store: QdrantStore, *, payload: bool | list[str]) -> Iterator[list[models.Record]]:
    return store.scroll(Scroll(collection_name=store.collection, with_payload=payload))


def _fetch(
    store: QdrantStore, ids: list[models.ExtendedPointId], *, payload: bool = False, vectors: bool = False
) -> list[models.Record]:
    request = Retrieve(collection_name=store.collection, ids=ids, with_payload=payload, with_vectors=vectors)
    return store.send(request)


def _count(store: QdrantStore) -> int:
    info = store.send(GetCollection(collection_name=store.collection))
    if Limits.of(info).exact:
        return store.send(Count(collection_name=store.collection)).count
    return sum(map(len, _pages(store, payload=False)))


def _point(record: models.Record, texts: TextLane | None, names: Set[str]) -> models.PointStruct:
    """Describe a point anew: with those of its vectors that the destination keeps, and that of its text."""
    vectors, payload = record.vector or {}, record.payload or {}
    assert isinstance(vectors, dict)
    kept = {name: vector for name, vector in vectors.items() if name in names}
    if texts is not None and SAID in payload and SAID in names - kept.keys():
        kept[SAID] = said_vector(payload[SAID], texts)
    return models.PointStruct.model_construct(id=record.id, vector=kept, payload=payload)
