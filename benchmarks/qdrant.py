"""Search through a Qdrant collection: recall and latency of its index, quantization and re-ranking."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from benchmarks.scorers import SHORT_LIST
from dits_adapter._progress import progress_bar
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant.options import QUANTIZATIONS, rescored
from dits_adapter.stores.qdrant.store import FRAMES, POOLED, QdrantStore

Floats = npt.NDArray[np.floating]

LIMIT = 100
"""Number of hits of a query. A video outside the hits counts as the last of the collection."""
UPLOAD = 64
PATIENCE = 120
"""Seconds after which a server must have built an index."""


@dataclass(frozen=True)
class Mode:
    """Mode of search.

    Attributes:
        name: name of the row.
        params: search parameters of a query; None in local mode, which is exact and takes no parameters.
        quantization: quantization that the collection keeps beside the full vectors.
        rerank: order the first hits by MaxSim over the frame vectors.
    """

    name: str
    params: models.SearchParams | None
    quantization: models.QuantizationConfig | None = None
    rerank: bool = False


_INT8, _BINARY = QUANTIZATIONS["scalar"], QUANTIZATIONS["binary"]
_ROUGH = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=False, oversampling=2.0))
_EXACT = models.SearchParams(exact=True)

LOCAL = (Mode("Qdrant, exact", None), Mode("Qdrant, exact, then MaxSim", None, rerank=True))
"""Modes of qdrant-client's local mode, which has no index and no quantization."""
SERVER = (
    *(replace(mode, params=_EXACT) for mode in LOCAL),
    Mode("Qdrant, HNSW", models.SearchParams(exact=False)),
    Mode("Qdrant, HNSW, int8", _ROUGH, _INT8),
    Mode("Qdrant, HNSW, int8, rescored", rescored(), _INT8),
    Mode("Qdrant, HNSW, binary, rescored", rescored(), _BINARY),
)


def require(location: str) -> None:
    """Refuse a location without a Qdrant; called before any long work.

    Raises:
        InputError: neither a URL nor `:memory:`.
        StoreError: no server answers there.
    """
    if location == ":memory:":
        return
    if not re.match(r"https?://", location):
        raise InputError(f"Qdrant at {location!r}: expected a server's URL (http://localhost:6333) or :memory:.")
    with QdrantStore(location) as store:
        try:
            store.client.get_collections()
        except (ResponseHandlingException, UnexpectedResponse, ValueError) as error:
            raise StoreError(
                f"{location} gives no usable answer ({error}). Is a Qdrant server running there?"
            ) from error


def search(
    location: str, test: Pairs, texts: Floats, *, progress: bool = True
) -> dict[str, tuple[npt.NDArray[np.float64], float]]:
    """Store the test videos in a new collection and search it in every mode of the location.

    Args:
        location: a server's URL, or ":memory:" for qdrant-client's local mode.
        test: videos, with their frame vectors where there are some.
        texts: unit vectors, (n, d), in the order of the test's texts.
        progress: show a progress bar.

    Returns:
        For each mode the rank of each text's video, (n,), and the median milliseconds of a query, sent alone.

    Raises:
        StoreError: the server cannot be reached, or does not build its index.
    """
    modes = LOCAL if location == ":memory:" else SERVER
    with QdrantStore(location, f"benchmark-{uuid.uuid4().hex}") as store:
        store.create(CollectionMetadata(space=test.space))
        try:
            _upload(store, test)
            results = {}
            for mode in progress_bar(modes, desc=f"searching {location}", progress=progress):
                if mode.rerank and test.frames is None:
                    continue
                if mode.params not in (None, _EXACT):
                    _index(store.client, store.collection, mode, len(test.video))
                results[mode.name] = _ranks(store, mode, test.labels, texts, len(test.video))
        finally:
            store.client.delete_collection(store.collection)
    return results


def _upload(store: QdrantStore, test: Pairs) -> None:
    for start in range(0, len(test.video), UPLOAD):
        rows = range(start, min(start + UPLOAD, len(test.video)))
        vectors = [{POOLED: test.video[row].tolist()} for row in rows]
        if test.frames is not None:
            for vector, frames in zip(vectors, test.frames[rows.start : rows.stop], strict=True):
                vector[FRAMES] = frames.tolist()
        store.write_points(
            [
                models.PointStruct(id=row, vector=vector, payload={})
                for row, vector in zip(rows, vectors, strict=True)
            ]
        )


def _index(client: QdrantClient, collection: str, mode: Mode, videos: int) -> None:
    """Make the server build a graph, even for a small collection, with the mode's quantization."""
    disabled = models.Disabled.DISABLED
    pooled = models.VectorParamsDiff(
        hnsw_config=models.HnswConfigDiff(full_scan_threshold=10),
        quantization_config=mode.quantization or disabled,
    )
    client.update_collection(
        collection,
        vectors_config={POOLED: pooled},
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1, default_segment_number=1),
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        info = client.get_collection(collection)
        if info.status == models.CollectionStatus.GREEN and (info.indexed_vectors_count or 0) >= videos:
            return
        if time.monotonic() > deadline:
            raise StoreError(
                f"Qdrant has not indexed {videos} vectors after {PATIENCE} s; its status is {info.status}."
            )
        time.sleep(0.1)


def _ranks(
    store: QdrantStore, mode: Mode, labels: npt.NDArray[np.int64], texts: Floats, videos: int
) -> tuple[npt.NDArray[np.float64], float]:
    ranks = np.full(len(texts), float(videos))
    seconds = []
    for row, text in enumerate(texts):
        query = text.tolist()
        started = time.perf_counter()
        if mode.rerank:
            first = models.Prefetch(query=query, using=POOLED, limit=SHORT_LIST, params=mode.params)
            answer = store.client.query_points(
                store.collection, [query], using=FRAMES, prefetch=first, limit=LIMIT, with_payload=False
            )
        else:
            answer = store.client.query_points(
                store.collection, query, using=POOLED, search_params=mode.params, limit=LIMIT, with_payload=False
            )
        seconds.append(time.perf_counter() - started)
        ids = [point.id for point in answer.points]
        if labels[row] in ids:
            ranks[row] = 1 + ids.index(int(labels[row]))
    return ranks, 1e3 * float(np.median(seconds))
