"""A store at a size: `python -m benchmarks.scale WHERE --segments 100000`, with WHERE a folder or a server's URL.

Fills a collection with generated vectors, unless it is there, and builds its index; then opens it and searches.
Give the command twice: the second run measures opening, memory and searches in a process of its own. Of a server,
memory is that of this process only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from qdrant_client import models
from tqdm import tqdm

from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.ingest import BATCH
from dits_adapter.stores.options import CollectionOptions
from dits_adapter.stores.qdrant import QdrantStore
from dits_adapter.stores.recall import measure_recall
from dits_adapter.stores.segments import FRAMES, POOLED
from dits_adapter.training.compare import markdown_table

WIDTH, CENTRES, QUERIES = 512, 1000, 200
SEGMENTS_A_VIDEO = 5
Floats = npt.NDArray[np.float32]


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a store, open it and search it; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Fill, open and search a store of generated vectors.")
    parser.add_argument("store", metavar="WHERE", help="a folder, or a Qdrant server's URL")
    parser.add_argument("--segments", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="frame vectors a segment (default: none)"
    )
    parser.add_argument(
        "--quantisation", default="none", choices=["none", "scalar", "binary"], help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    with QdrantStore(args.store, f"scale-{args.segments}-{args.frames}-{args.quantisation}") as store:
        if store.exists():
            started = time.perf_counter()
        else:
            _fill(store, args.segments, args.frames, CollectionOptions(quantisation=args.quantisation))
            store.close()
            started = time.perf_counter()
        store.open()
        count = store.count()
        print(f"opened {count:,} segments in {time.perf_counter() - started:.2f} s; {_memory()}")
        queries = next(_vectors(1, QUERIES, QUERIES))
        milliseconds = []
        for query in queries:
            started = time.perf_counter()
            store.search(query)
            milliseconds.append(1e3 * (time.perf_counter() - started))
        p50, p99 = np.percentile(milliseconds, (50, 99))
        print(f"QdrantStore.search, ten videos: p50 {p50:.1f} ms, p99 {p99:.1f} ms; {_memory()}\n")
        rows = measure_recall(store, queries)
        table = [[row.search, f"{row.recall:.4f}", f"{row.p50:.1f}", f"{row.p99:.1f}"] for row in rows]
        print(markdown_table(["search", "recall@10", "p50 ms", "p99 ms"], table))
    return 0


def _fill(store: QdrantStore, segments: int, frames: int, options: CollectionOptions) -> None:
    rng = np.random.default_rng(2)
    store.create(_space(frames), segment_seconds=2.0, options=options)
    started, waited = time.perf_counter(), 0.0
    with store.bulk_load(), tqdm(total=segments, unit="segment") as bar:
        for start, batch in zip(range(0, segments, BATCH), _vectors(0, segments, BATCH), strict=True):
            points = [_point(start + n, vector, frames, rng) for n, vector in enumerate(batch)]
            written = time.perf_counter()
            store.write(points)
            waited += time.perf_counter() - written
            bar.update(len(points))
        stored = time.perf_counter() - started
    store.build_index()
    built = time.perf_counter() - started - stored
    print(
        f"stored {segments:,} segments with {frames} frames in {stored:.0f} s, {waited:.0f} s of it in the store "
        f"({segments / waited:,.0f} segments/s); index {built:.0f} s; {_memory()}"
    )


def _vectors(seed: int, total: int, size: int) -> Iterator[Floats]:
    """Generate vectors around a thousand centres, (size, d) at a time: near and far ones, as in a library."""
    centres = np.random.default_rng(99).normal(size=(CENTRES, WIDTH))
    rng = np.random.default_rng(seed)
    for start in range(0, total, size):
        n = min(size, total - start)
        vectors = centres[rng.integers(CENTRES, size=n)] + rng.normal(size=(n, WIDTH))
        yield (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _point(n: int, vector: Floats, frames: int, rng: np.random.Generator) -> models.PointStruct:
    vectors: dict[str, list[float] | list[list[float]]] = {POOLED: vector.tolist()}
    if frames:
        vectors[FRAMES] = (vector + rng.normal(size=(frames, WIDTH)) / WIDTH**0.5).tolist()
    video, segment = divmod(n, SEGMENTS_A_VIDEO)
    payload = {
        "video_id": str(uuid.UUID(int=video)),
        "path": f"/library/{video}.mp4",
        "start": 2.0 * segment,
        "end": 2.0 * segment + 2,
        "timestamps": [2 * segment + (frame + 0.5) * 2 / max(1, frames) for frame in range(frames)],
    }
    return models.PointStruct.model_construct(id=str(uuid.UUID(int=n)), vector=vectors, payload=payload)


def _space(frames: int) -> EmbeddingSpace:
    canaries = [tuple(map(tuple, rows.tolist())) for rows in _vectors(3, 6, 3)]
    return EmbeddingSpace(
        encoder="generated",
        weights_sha256=hashlib.sha256(b"generated").hexdigest(),
        frames=max(1, frames),
        width=WIDTH,
        canary_texts=canaries[0],
        canary_images=canaries[1],
    )


def _memory() -> str:
    """Say what this process has in memory: its own, and with the files that the system keeps there for it."""
    if not sys.platform.startswith("linux"):
        return "memory is measured on Linux only"
    with open("/proc/self/status") as status:
        sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in status if " kB" in line}
    return f"{sizes['RssAnon']:,} MB of memory, {sizes['VmRSS']:,} MB with mapped files"


if __name__ == "__main__":
    raise SystemExit(main())
