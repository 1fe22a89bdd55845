"""Copy of a collection to another place: a folder to a server, a server to a folder, one server to another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from qdrant_client import models

from dits_adapter._progress import progress_bar
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.qdrant._limits import NUMBER_BYTES, PAYLOAD_BYTES, Limits, fitting
from dits_adapter.stores.qdrant._requests import (
    Count,
    CreatePayloadIndex,
    GetCollection,
    Retrieve,
    Scroll,
)
from dits_adapter.stores.qdrant._schema import POOLED, said_vector
from dits_adapter.stores.qdrant.options import CLUSTER, CollectionOptions
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.text_lane import SAID, TextLane

__all__ = ["BATCH", "copy_collection"]

BATCH = 64
"""Points read at once, at most: fewer where their vectors are large."""


def copy_collection(source: QdrantStore, destination: QdrantStore, *, progress: bool = True) -> int:
    """Copy points, vectors, payload, metadata, options and payload indexes.

    The destination is made if it is missing. Points that it has already are compared and left; so a copy that was
    interrupted is completed by the next one, which ends as one undisturbed copy would have. Shards and replicas
    are taken over from server to server. No more than a thousand payloads and a few points are in memory.

    Args:
        source: a collection made by this package, to which nothing is written meanwhile.
        destination: another collection, of the same space and segments if it is there.
        progress: show a progress bar on a terminal.

    Returns:
        How many points were written.

    Raises:
        InputError: both are in the same folder or are the same collection, or a store is of one tenant.
        SpaceMismatchError: the destination is of another space.
        StoreError: the source is missing or foreign; the destination is cut otherwise, or has points that the
            source has not; either fails on the way, or the numbers of points differ at the end.
    """
    if source.tenant is not None or destination.tenant is not None:
        raise InputError("between Qdrant's places a copy is of all tenants; leave the tenant out.")
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
    destination.create(metadata, _options(info, cluster=cluster) if target is None else None)
    _require_no_others(source, destination)
    if metadata.texts is not None and (destination.metadata() or metadata).texts != metadata.texts:
        destination.set_texts(metadata.texts)
    copied_to = destination.collection
    indexed = destination.send(GetCollection(collection_name=copied_to)).payload_schema
    for field, index in info.payload_schema.items():
        if field not in indexed:
            schema = index.params or index.data_type
            destination.send(CreatePayloadIndex(collection_name=copied_to, field_name=field, field_schema=schema))
    written = 0
    frames = 1 + (metadata.space.video.frames or 12)
    size = fitting(PAYLOAD_BYTES + NUMBER_BYTES * metadata.space.video.width * frames, BATCH)
    total = _count(source)
    with (
        destination.bulk_load(progress=progress),
        progress_bar(total=total, unit="point", desc=destination.collection, progress=progress) as bar,
    ):
        for records in _pages(source, payload=True):
            copied = {r.id: r for r in _fetch(destination, [r.id for r in records], payload=True)}
            missing = [r.id for r in records if r.id not in copied or not _same(r.payload, copied[r.id].payload)]
            bar.update(len(records) - len(missing))
            queue = iter(missing)
            while ids := list(islice(queue, size)):
                points = [_point(r, metadata.texts) for r in _fetch(source, ids, payload=True, vectors=True)]
                destination.write_points(points)
                written += len(points)
                bar.update(len(points))
    destination.finish()
    counts = _count(source), _count(destination)
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy is not complete: {source.collection!r} has {counts[0]:,} points and "
            f"{destination.collection!r} has {counts[1]:,}. Was something written meanwhile? Give the same "
            "command again."
        )
    return written


def _options(info: models.CollectionInfo, *, cluster: bool) -> CollectionOptions:
    """Read the options of the source, its shards and replicas only on the way to another `cluster`."""
    params = info.config.params
    assert isinstance(params.vectors, dict)
    options = CollectionOptions.of(params, params.vectors[POOLED]).model_dump()
    return CollectionOptions(**{k: v for k, v in options.items() if cluster or k not in CLUSTER})


def _require_no_others(source: QdrantStore, destination: QdrantStore) -> None:
    for records in _pages(destination, payload=False):
        ids = {record.id for record in records}
        if others := ids - {record.id for record in _fetch(source, list(ids))}:
            raise StoreError(
                f"the collection {destination.collection!r} has points that {source.collection!r} has not, such "
                f"as {min(map(str, others))}. Copy to another name (--to), or delete that collection first."
            )


def _pages(store: QdrantStore, *, payload: bool) -> Iterator[list[models.Record]]:
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


def _point(record: models.Record, texts: TextLane | None) -> models.PointStruct:
    """Describe a point anew, with the sparse vector of its text where the source could have none."""
    vector, payload = record.vector or {}, record.payload or {}
    if texts is not None and SAID in payload and isinstance(vector, dict):
        vector = {SAID: said_vector(payload[SAID], texts), **vector}
    return models.PointStruct.model_construct(id=record.id, vector=vector, payload=payload)


def _same(source: Any, target: Any) -> bool:
    """Compare two payloads; a server may read a decimal number back as the next float to it."""
    if isinstance(source, dict) and isinstance(target, dict):
        return source.keys() == target.keys() and all(_same(value, target[key]) for key, value in source.items())
    if isinstance(source, list) and isinstance(target, list):
        return len(source) == len(target) and all(map(_same, source, target))
    if isinstance(source, float) and isinstance(target, float):
        return math.isclose(source, target, rel_tol=1e-12)
    return bool(source == target)
