"""A collection from one place to another: a folder to a server, a server to a folder, one server to another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from qdrant_client import models
from tqdm import tqdm

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.qdrant.options import CLUSTER, CollectionOptions
from dits_adapter.stores.qdrant.schema import POOLED
from dits_adapter.stores.qdrant.store import SCROLL, QdrantStore

BATCH = 64
"""Points read and written at once: 5 MB of JSON for 12 frames of width 512, where a server accepts 32."""


def copy_collection(source: QdrantStore, destination: QdrantStore, *, progress: bool = True) -> int:
    """Copy points, vectors, payload, stamp, options and payload indexes.

    The destination is made if it is missing. What is there already is compared and left; so a copy that was
    interrupted is completed by the next one, which ends as one undisturbed copy would have. Shards and replicas
    are taken over from server to server. No more than a thousand payloads and a few points are in memory.

    Args:
        source: a collection made by this package, to which nothing is written meanwhile.
        destination: another collection, of the same space and segments if it is there.
        progress: show a progress bar.

    Returns:
        How many points were written.

    Raises:
        InputError: both are in the same folder or are the same collection.
        SpaceMismatchError: the destination is of another space.
        StoreError: the source is missing or foreign; the destination is cut otherwise, or has points that the
            source has not; either fails on the way, or the numbers of points differ at the end.
    """
    within = source.place == destination.place
    if within and not source.remote:
        raise InputError(
            f"source and destination are both in {source.location}; copy to another folder or server."
        )
    origin = source.resolve()
    stamp = source.metadata()
    if stamp is None:
        raise StoreError(
            f"the collection {source.collection!r} was made by something else than dits_adapter; Qdrant's own "
            "snapshots copy any collection between servers."
        )
    with source.translate_errors():
        info = source.client.get_collection(source.collection)
    target, cluster = destination.resolve(), source.remote and destination.remote
    if within and origin == target:
        raise InputError(f"source and destination are both {origin!r} in {source.location}.")
    destination.create_from(stamp, _options(info, cluster=cluster) if target is None else None)
    _require_no_others(source, destination)
    with destination.translate_errors():
        indexed = destination.client.get_collection(destination.collection).payload_schema
        for field, index in info.payload_schema.items():
            if field not in indexed:
                schema = index.params or index.data_type
                destination.client.create_payload_index(destination.collection, field, schema)
    written = 0
    total = _count(source)
    with (
        destination.bulk_load(progress=progress),
        tqdm(total=total, unit="point", desc=destination.collection, disable=not progress) as bar,
    ):
        for records in _pages(source, True):
            there = {r.id: r for r in _fetch(destination, [r.id for r in records], payload=True)}
            missing = [r.id for r in records if r.id not in there or not _same(r.payload, there[r.id].payload)]
            bar.update(len(records) - len(missing))
            queue = iter(missing)
            while ids := list(islice(queue, BATCH)):
                points = [_point(record) for record in _fetch(source, ids, payload=True, vectors=True)]
                destination.write(points)
                written += len(points)
                bar.update(len(points))
    destination.build_index()
    counts = _count(source), _count(destination)
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy is not complete: {source.collection!r} has {counts[0]:,} points and "
            f"{destination.collection!r} has {counts[1]:,}. Was something written meanwhile? Give the same "
            "command again."
        )
    return written


def _options(info: models.CollectionInfo, *, cluster: bool) -> CollectionOptions:
    """Read what the source is kept like, its shards and replicas only on the way to another `cluster`."""
    params = info.config.params
    assert isinstance(params.vectors, dict)
    found = CollectionOptions.of(params, params.vectors[POOLED]).model_dump()
    return CollectionOptions(**{k: v for k, v in found.items() if cluster or k not in CLUSTER})


def _require_no_others(source: QdrantStore, destination: QdrantStore) -> None:
    for records in _pages(destination, False):
        ids = {record.id for record in records}
        if others := ids - {record.id for record in _fetch(source, list(ids))}:
            raise StoreError(
                f"the collection {destination.collection!r} has points that {source.collection!r} has not, such "
                f"as {min(map(str, others))}. Copy to another name (--to), or delete that collection first."
            )


def _pages(store: QdrantStore, payload: bool) -> Iterator[list[models.Record]]:
    offset = None
    while True:
        records, offset = store.with_retry(
            partial(
                store.client.scroll,
                store.collection,
                limit=SCROLL,
                offset=offset,
                with_payload=payload,
                with_vectors=False,
            )
        )
        yield records
        if offset is None:
            return


def _fetch(
    store: QdrantStore, ids: list[models.ExtendedPointId], *, payload: bool = False, vectors: bool = False
) -> list[models.Record]:
    return store.with_retry(
        partial(store.client.retrieve, store.collection, ids, with_payload=payload, with_vectors=vectors)
    )


def _count(store: QdrantStore) -> int:
    return store.with_retry(partial(store.client.count, store.collection, exact=True)).count


def _point(record: models.Record) -> models.PointStruct:
    return models.PointStruct.model_construct(
        id=record.id, vector=record.vector or {}, payload=record.payload or {}
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two payloads are the same; a server may read a decimal number back as the next float to it."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return bool(one == other)
