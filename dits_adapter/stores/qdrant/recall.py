"""Recall of a collection's index and quantization: the hits of every kind of search, against exact search."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from dits_adapter.errors import InputError
from dits_adapter.stores.qdrant._requests import GetCollection, QueryBatch
from dits_adapter.stores.qdrant.options import rescored
from dits_adapter.stores.qdrant.store import QdrantStore

__all__ = ["EFS", "Recall", "check_limit", "measure_recall"]

EFS = (16, 32, 64, 128, 256, 512)
"""Candidates that the index keeps while it searches: more is slower and finds more."""


@dataclass(frozen=True)
class Recall:
    """Recall and latency of one way to search a collection.

    Attributes:
        search: in words.
        recall: mean share of the nearest segments that it finds, 0 to 1.
        p50, p99: milliseconds of a query sent alone, the way to the server included.
    """

    search: str
    recall: float
    p50: float
    p99: float


def check_limit(limit: int) -> None:
    """Refuse a number of segments to find that is below 1, with an `InputError`."""
    if limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 segment.")


def measure_recall(store: QdrantStore, queries: NDArray[np.floating], *, limit: int = 10) -> list[Recall]:
    """Search in every way that the collection offers and compare with exact search.

    The latter is the first row; its recall is 1 by definition. The second is that of `QdrantStore.search`.

    Args:
        store: the collection, on a server or in a folder; memory is searched exactly.
        queries: (n, d), as they would be searched with: plain and adapted queries differ in their recall.
        limit: number of nearest segments to find; of fewer segments all.

    Raises:
        InputError: no queries, a limit below 1, or a store in memory.
        StoreError, SpaceMismatchError: as `QdrantStore.open`.
    """
    if len(queries) == 0:
        raise InputError("there are no queries to measure the recall with.")
    check_limit(limit)
    store.open()
    if not store.capabilities.index:
        raise InputError("a store in memory has no index and is searched exactly; its recall is 1.")
    config = store.send(GetCollection(collection_name=store.collection)).config.params.vectors
    pooled = config[store.vector] if isinstance(config, dict) else config
    limit = min(limit, max(1, store.count()))
    quantized = pooled is not None and pooled.quantization_config is not None
    exact, milliseconds = _search(store, queries, models.SearchParams(exact=True), limit)
    rows = [_row("exact", exact, exact, milliseconds)]
    for name, params in _ways(quantized):
        hits, milliseconds = _search(store, queries, params, limit)
        rows.append(_row(name, hits, exact, milliseconds))
    return rows


def _ways(quantized: bool) -> Iterator[tuple[str, models.SearchParams]]:
    yield "index", rescored()
    for ef in EFS:
        yield f"index, ef {ef}", rescored().model_copy(update={"hnsw_ef": ef})
    if quantized:
        rough = models.QuantizationSearchParams(rescore=False)
        yield "index, not rescored", models.SearchParams(quantization=rough)
        full = models.QuantizationSearchParams(ignore=True)
        yield "index, full vectors", models.SearchParams(quantization=full)


def _search(
    store: QdrantStore, queries: NDArray[np.floating], params: models.SearchParams, limit: int
) -> tuple[list[set[models.ExtendedPointId]], list[float]]:
    hits, milliseconds = [], []
    for query in queries.tolist():
        started = time.perf_counter()
        request = models.QueryRequest(
            query=query,
            using=store.vector or None,
            filter=store.scoped(),
            params=params,
            limit=limit,
            with_payload=False,
        )
        answer = store.send(QueryBatch(collection_name=store.collection, requests=[request]))[0]
        milliseconds.append(1e3 * (time.perf_counter() - started))
        hits.append({point.id for point in answer.points})
    return hits, milliseconds


def _row(
    name: str,
    hits: Sequence[set[models.ExtendedPointId]],
    exact: Sequence[set[models.ExtendedPointId]],
    times: list[float],
) -> Recall:
    shares = [len(ids & nearest) / max(1, len(nearest)) for ids, nearest in zip(hits, exact, strict=True)]
    p50, p99 = np.percentile(times, (50, 99))
    return Recall(name, float(np.mean(shares)), float(p50), float(p99))
