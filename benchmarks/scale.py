"""Costs of a large collection: `python -m benchmarks.scale search` and `python -m benchmarks.scale ingest`.

`search` fills a collection with generated vectors (`benchmarks.generated`) and measures, for plain and for adapted
queries, recall and latency of its index; with full vectors, then with int8
and binary copies of the same points. The adapter is a ridge regression, fitted to pairs of the same distribution.
The collection is what `dits-adapter ingest` makes and the points carry the payload that it writes, but no frame
vectors: these are not searched, and a million segments' would take 25 GB.

`ingest` stores generated clips, each with a content of its own, by a new process for each number of clips; a
second process finds everything present.

Both commands run against `--store`, an existing folder or server, or start the server whose binary is at
QDRANT_BIN; where the files are local, they report memory and disk too. They remove what they store.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from benchmarks.datasets.lookalike import make_clips
from benchmarks.generated import CHUNK, PairModel, Stream, Vectors, segment_row
from benchmarks.qdrant import require
from benchmarks.server import QdrantProcess
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter
from dits_adapter.cli import guarded
from dits_adapter.data.pairs import load_pairs
from dits_adapter.errors import InputError, StoreError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant._making import INDEXING_THRESHOLD
from dits_adapter.stores.qdrant._requests import QueryBatch
from dits_adapter.stores.qdrant.options import QUANTIZATIONS
from dits_adapter.stores.qdrant.recall import Recall, measure_recall
from dits_adapter.stores.qdrant.store import POOLED, QdrantStore
from dits_adapter.stores.report import IngestReport
from dits_adapter.training._initial import fit_closed_form
from dits_adapter.training._loop import evaluate
from dits_adapter.vectors import unit
from dits_adapter.video.encoder import VideoEncoder

LIMIT = 10
BATCH = 500
"""Points a request: 1 MB at width 512."""
SETTLED = 3.0
"""Seconds for which a collection must report that nothing is being built: work starts a moment after a change."""
PAIRS: Mapping[Stream, int] = {"training": 1_000, "validation": 500, "test": 500}
WHOLE = "QdrantStore.search"
DISTINCT = 32
"""Number of clips that are drawn; all others are copies with another number at their end."""


@dataclass(frozen=True)
class Kept:
    """Measurements of one quantization of a collection's vectors.

    Attributes:
        quantization: key of `QUANTIZATIONS`.
        build: seconds until nothing was left to build.
        indexed: vectors in the index; Qdrant searches small parts of a collection without one.
        memory: MiB of the server, mapped files included, or of this process for a folder; None for a server
            elsewhere.
        disk: MiB of the folder of the files; None for a server elsewhere.
        searches: rows of `measure_recall` for `plain` and `adapted` queries.
        calls: for `plain` and `adapted` queries, p50 and p99 milliseconds of `QdrantStore.search`, which groups
            the segments by video and fetches their payload; and how many times the index's time for the same
            query that is, in the median, asked one after the other.
    """

    quantization: str
    build: float
    indexed: int
    memory: float | None
    disk: float | None
    searches: dict[str, tuple[Recall, ...]]
    calls: dict[str, tuple[float, float, float]]

    def markdown(self) -> str:
        """Write the measurements as a table."""
        facts = [f"{self.indexed:,} vectors in the index", f"built in {self.build:.0f} s"]
        if self.memory is not None and self.disk is not None:
            facts.append(f"{self.memory:,.0f} MiB in memory, {self.disk:,.0f} MiB on disk")
        columns = itertools.product((f"recall@{LIMIT}", "p50 ms", "p99 ms"), self.searches)
        rows = [
            [
                same[0].search,
                *(f"{row.recall:.4f}" for row in same),
                *(f"{row.p50:.1f}" for row in same),
                *(f"{row.p99:.1f}" for row in same),
            ]
            for same in zip(*self.searches.values(), strict=True)
        ]
        *times, ratios = zip(*self.calls.values(), strict=True)
        rows.append([WHOLE, *("–" for _ in self.calls), *(f"{time_:.1f}" for same in times for time_ in same)])
        whole = ", ".join(f"{ratio:.1f} ({name})" for name, ratio in zip(self.calls, ratios, strict=True))
        facts.append(f"{WHOLE} takes the index's time {whole} times")
        table = markdown_table(["search", *map(", ".join, columns)], rows)
        return f"**Quantization {self.quantization}**: {', '.join(facts)}.\n\n{table}"


@dataclass(frozen=True)
class SizedCollection:
    """Measurements of a collection of one size.

    Attributes:
        segments: number of segments.
        upload: segments stored a second; None where all were stored before.
        kept: measurements by quantization, full vectors first.
    """

    segments: int
    upload: float | None
    kept: list[Kept] = field(default_factory=list)

    def markdown(self) -> str:
        """Write the heading of the tables."""
        rate = "were there already" if self.upload is None else f"stored {self.upload:,.0f} a second"
        return f"## {self.segments:,} segments, {rate}"


@dataclass
class Search:
    """Result of one run of `search`.

    Attributes:
        vectors: origin of the vectors, in words.
        queries: number of queries.
        gap: mean cosine of a text and its video, and R@1, on fresh pairs, by `plain` and `adapted`.
        environment: processor and versions.
        collections: measurements by size.
        version: version of this layout.
    """

    vectors: str
    queries: int
    gap: dict[str, tuple[float, float]]
    environment: dict[str, str]
    collections: list[SizedCollection] = field(default_factory=list)
    version: Literal[1] = 1

    def markdown(self) -> str:
        """Write the result as Markdown."""
        gap = "; ".join(f"{name} {cosine:.3f} and {r1:.1f}" for name, (cosine, r1) in self.gap.items())
        tables = (part.markdown() for collection in self.collections for part in (collection, *collection.kept))
        return "\n\n".join(
            [
                "# Search at scale",
                ", ".join(f"{key} {value}" for key, value in self.environment.items()),
                f"**The vectors are generated**: drawn from {self.vectors}. {self.queries} queries, "
                f"one at a time; mean cosine of a query to its video, and R@1 among {PAIRS['test']}: {gap}.",
                *tables,
            ]
        )


@dataclass(frozen=True)
class Ingestion:
    """Measurements of storing a number of clips.

    Attributes:
        clips: number of clips.
        rate: clips stored a second.
        memory: greatest memory of the process, MiB.
        again: seconds of a second run, which stores nothing.
    """

    clips: int
    rate: float
    memory: float
    again: float


@dataclass
class Ingest:
    """Result of one run of `ingest`; `kilobytes` is the mean size of a clip."""

    encoder: str
    kilobytes: float
    environment: dict[str, str]
    sizes: list[Ingestion] = field(default_factory=list)
    version: Literal[1] = 1

    def markdown(self) -> str:
        """Write the result as Markdown."""
        cells = [[f"{s.clips:,}", f"{s.rate:.1f}", f"{s.memory:,.0f}", f"{s.again:.2f}"] for s in self.sizes]
        return "\n\n".join(
            [
                "# Ingestion at scale",
                ", ".join(f"{key} {value}" for key, value in self.environment.items()),
                f"Generated clips of one second, 64 × 48 pixels, {self.kilobytes:.0f} kB, through {self.encoder}; "
                "a new process for each row.",
                markdown_table(["clips", "stored a second", "MiB of the process", "seconds, all present"], cells),
            ]
        )


@guarded("benchmarks.scale")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    search = commands.add_parser("search", help="recall and latency of large collections")
    search.add_argument("--segments", type=int, nargs="+", default=[100_000], metavar="N", help="sizes (100000)")
    search.add_argument("--queries", type=int, default=200, help="queries of each kind (%(default)s)")
    search.add_argument("--width", type=int, default=512, help="dimension of the vectors (%(default)s)")
    search.add_argument("--like", type=Path, metavar="PAIRS", help="take moments and width from these pairs")
    search.add_argument("--grpc-port", type=int, default=6334, help="of the server, for the upload (%(default)s)")
    search.add_argument("--keep", action="store_true", help="leave the collections there, for another run")
    search.set_defaults(run=run_search)
    ingest = commands.add_parser("ingest", help="rate, memory and repetition of ingestion")
    ingest.add_argument("--clips", type=int, nargs="+", default=[100, 1_000], metavar="N", help="sizes (100 1000)")
    ingest.add_argument("--encoder", default="demo-clip", help="a CLIP (%(default)s)")
    ingest.set_defaults(run=run_ingest)
    for command in (search, ingest):
        command.add_argument(
            "--store",
            metavar="WHERE",
            help="a folder, or a server's URL (default: a server is started from QDRANT_BIN)",
        )
        command.add_argument("--out", type=Path, default=Path("results/scale"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    args.run(args)
    return 0


def run_search(args: argparse.Namespace) -> None:
    """Measure collections of each size, and print and write each quantization as soon as it is measured."""
    if args.keep and args.store is None:
        raise InputError("--keep is for a store that is there: name it with --store.")
    if not 1 <= args.queries <= CHUNK:
        raise InputError(f"--queries {args.queries}: at most {CHUNK:,} can be drawn, and at least one.")
    if min(args.segments) < 1:
        raise InputError(f"--segments {min(args.segments)}: a collection has at least one.")
    if args.like is None:
        model = PairModel.standard(args.width)
    else:
        model = PairModel.like(load_pairs(args.like), args.like.name)
    training, validation, test = (model.pairs(stream, count) for stream, count in PAIRS.items())
    adapter = fit_closed_form("ridge", training, validation)
    gap = {}
    for name, tried in (("plain", fit_closed_form("identity", training, validation)), ("adapted", adapter)):
        cosines = np.sum(unit(tried.adapt(test.text)) * test.video, axis=1)
        gap[name] = (float(cosines.mean()), RetrievalMetrics.from_ranks(evaluate(tried, test)).r1)
    result = Search(model.source, args.queries, gap, environment())
    print(result.markdown())
    with place_of(args.store, args.grpc_port) as place:
        for segments in sorted(set(args.segments)):
            with measuring(place, model, segments, args.queries, adapter, keep=args.keep) as (collection, steps):
                result.collections.append(collection)
                print(f"\n{collection.markdown()}", flush=True)
                for kept in steps:
                    collection.kept.append(kept)
                    print(f"\n{kept.markdown()}", flush=True)
                    (args.out / "search.json").write_bytes(TypeAdapter(Search).dump_json(result, indent=1) + b"\n")
                    (args.out / "search.md").write_text(result.markdown() + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Place:
    """Place of a store: a server or a folder.

    Attributes:
        location: URL of the server, or the folder.
        grpc_port: gRPC port of the server; None for a folder.
        process: id of the process that serves; None for a server elsewhere.
        folder: folder of the files; None for a server elsewhere.
    """

    location: str
    grpc_port: int | None = None
    process: int | Literal["self"] | None = None
    folder: Path | None = None

    def memory(self) -> float | None:
        """Return MiB of the process; None for a server elsewhere."""
        return None if self.process is None else memory(self.process, "VmRSS")

    def disk(self) -> float | None:
        """Return MiB of the blocks of the files; None for a server elsewhere."""
        if self.folder is None:
            return None
        return sum(path.stat().st_blocks for path in self.folder.rglob("*")) * 512 / 1024**2


@contextmanager
def place_of(store: str | None, grpc_port: int = 6334) -> Iterator[Place]:
    """Yield the folder or the server of `store`, or start a server.

    Raises:
        InputError: neither a store nor QDRANT_BIN.
        StoreError: no server answers at the URL.
    """
    if store is not None and not re.match(r"https?://", store):
        yield Place(store, None, "self", Path(store))
        return
    if store is not None:
        require(store)
        yield Place(store, grpc_port)
        return
    binary = os.environ.get("QDRANT_BIN")
    if binary is None:
        raise InputError("give a Qdrant server with --store URL, or set QDRANT_BIN to the binary of one to start.")
    process = QdrantProcess(binary)
    try:
        yield Place(process.url, process.grpc_port, process.pid, process.folder)
    finally:
        process.remove()


def memory(process: int | Literal["self"], what: Literal["VmRSS", "VmHWM"]) -> float:
    """Return MiB of a Linux process in memory, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(what)]
    return int(line.split()[1]) / 1024


@contextmanager
def measuring(
    place: Place, model: PairModel, segments: int, queries: int, adapter: Adapter, *, keep: bool
) -> Iterator[tuple[SizedCollection, Iterator[Kept]]]:
    """Fill a collection, or open the one that an earlier run kept, to search it in every way.

    Args:
        place: server or folder.
        model: distribution of the vectors.
        segments: number of segments.
        queries: number of plain queries, each of which is adapted too.
        adapter: adapter of the queries.
        keep: leave the collection in place.

    Yields:
        The collection, and an iterator that measures one quantization after the other.

    Raises:
        StoreError: the server cannot be reached, or fails.
    """
    texts = model.queries(queries, segments)
    vectors = {"plain": texts, "adapted": unit(adapter.adapt(texts))}
    name = f"benchmark-{model.digest}-{segments}"
    with QdrantStore(place.location, name) as store:
        try:
            collection = SizedCollection(segments, fill(store, place, model, segments))
            yield collection, (measure_kept(store, place, way, vectors, full=segments) for way in QUANTIZATIONS)
        finally:
            if not keep:
                with store.translate_errors():
                    store.client.delete_collection(name)


def fill(store: QdrantStore, place: Place, model: PairModel, segments: int) -> float | None:
    """Upload the missing segments of a collection, without building an index.

    Returns:
        Segments stored a second; None where none was missing.
    """
    store.create(CollectionMetadata(space=model.space))
    stored = store.count()
    if stored >= segments:
        return None
    with store.translate_errors():
        # in order, so that the stored segments are the first ones
        loading = models.OptimizersConfigDiff(indexing_threshold=0)
        store.client.update_collection(store.collection, optimizers_config=loading)
        client = None if place.grpc_port is None else grpc_client(place.location, place.grpc_port)
        started = time.monotonic()
        with progress_bar(total=segments, initial=stored, unit="segment", desc="storing") as bar:
            for chunk in range(stored // CHUNK, -(-segments // CHUNK)):
                drawn = model.segments(chunk)[: segments - chunk * CHUNK]
                points = [_point(chunk * CHUNK + row) for row in range(len(drawn))]
                if client is None:
                    for point, vector in zip(points, drawn, strict=True):
                        point.vector = {POOLED: vector.tolist()}
                    store.write_points(points)
                else:
                    client.upload_collection(
                        store.collection,
                        {POOLED: drawn},
                        payload=[point.payload or {} for point in points],
                        ids=[point.id for point in points],
                        batch_size=BATCH,
                        wait=True,
                    )
                bar.update(chunk * CHUNK + len(drawn) - bar.n)
        seconds = time.monotonic() - started
    return (segments - stored) / seconds


def grpc_client(url: str, port: int) -> QdrantClient:
    """Connect to a server by gRPC, which is fastest for vectors."""
    key = os.environ.get("QDRANT_API_KEY")
    return QdrantClient(url=url, grpc_port=port, prefer_grpc=True, api_key=key, check_compatibility=False)


def _point(number: int) -> models.PointStruct:
    """Describe a segment as ingestion does, without its vector."""
    row = segment_row(number, np.empty(0, np.float32))
    return models.PointStruct(id=row.id, vector={}, payload=row.payload())


def measure_kept(
    store: QdrantStore, place: Place, quantization: str, vectors: dict[str, Vectors], *, full: int
) -> Kept:
    """Quantize the vectors of a collection and measure searches; `vectors` are queries by kind."""
    started = time.monotonic()
    with store.translate_errors():
        pooled = models.VectorParamsDiff(
            quantization_config=QUANTIZATIONS[quantization] or models.Disabled.DISABLED
        )
        store.client.update_collection(
            store.collection,
            vectors_config={POOLED: pooled},
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXING_THRESHOLD),
        )
        ended, indexed = settle(store, full)  # a folder has built it by now
    searches, calls = {}, {}
    with QdrantStore(store.client, store.collection) as fresh:  # one that knows how the vectors are kept now
        for name, queries in vectors.items():
            searches[name] = tuple(measure_recall(fresh, queries, limit=LIMIT))
            calls[name] = whole_searches(fresh, queries)
    return Kept(quantization, ended - started, indexed, place.memory(), place.disk(), searches, calls)


def settle(store: QdrantStore, full: int) -> tuple[float, int]:
    """Wait until the index is built; return the time of its end (monotonic) and the number of indexed vectors."""
    busy = time.monotonic()
    with progress_bar(total=full, unit="segment", desc="indexing") as bar:
        while True:
            info = store.client.get_collection(store.collection)
            now = time.monotonic()
            bar.update((info.indexed_vectors_count or 0) - bar.n)
            if info.status == models.CollectionStatus.RED:
                raise StoreError(f"Qdrant cannot build the index: {info.optimizer_status}")
            if info.status != models.CollectionStatus.GREEN:
                busy = now
            elif now - busy > SETTLED:
                return busy, info.indexed_vectors_count or 0
            time.sleep(0.2)


def whole_searches(store: QdrantStore, queries: Vectors) -> tuple[float, float, float]:
    """Return p50 and p99 milliseconds of `QdrantStore.search`, and its time in those of the index; see `Kept`."""
    store.open()
    milliseconds, ratios = [], []
    for query in queries:
        request = models.QueryRequest(query=query.tolist(), using=store.vector, limit=LIMIT, with_payload=False)
        started = time.perf_counter()
        store.send(QueryBatch(collection_name=store.collection, requests=[request]))
        between = time.perf_counter()
        store.search(query, limit=LIMIT)
        milliseconds.append(1e3 * (time.perf_counter() - between))
        ratios.append((time.perf_counter() - between) / (between - started))
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return float(p50), float(p99), float(np.median(ratios))


def run_ingest(args: argparse.Namespace) -> None:
    """Measure ingestion for each number of clips, and print each row as soon as it is measured."""
    if min(args.clips) < 1:
        raise InputError(f"--clips {min(args.clips)}: at least one is stored.")
    with place_of(args.store) as place, tempfile.TemporaryDirectory() as scratch:
        drawn = draw_clips(Path(scratch) / "drawn", min(DISTINCT, max(args.clips)))
        result = Ingest(args.encoder, sum(map(len, drawn)) / len(drawn) / 1000, environment())
        for clips in sorted(set(args.clips)):
            folder = Path(scratch) / str(clips)
            write_distinct(drawn, folder, clips)
            result.sizes.append(measure_ingest(place.location, folder, clips, args.encoder))
            (args.out / "ingest.json").write_bytes(TypeAdapter(Ingest).dump_json(result, indent=1) + b"\n")
            (args.out / "ingest.md").write_text(result.markdown() + "\n", encoding="utf-8")
            print(result.markdown(), flush=True)


def draw_clips(folder: Path, count: int) -> list[bytes]:
    """Return the contents of generated clips of one second."""
    folder.mkdir()
    return [clip.path.read_bytes() for clip in make_clips(folder, {"clip": count})["clip"]]


def write_distinct(clips: Sequence[bytes], folder: Path, count: int) -> None:
    """Write copies of clips in turn, each with its number in a box at the end, which decoders ignore.

    A box of the type `free` is a size (four bytes), the type and anything (ISO/IEC 14496-12, 8.1.2).
    """
    folder.mkdir()
    for number, clip in zip(range(count), itertools.cycle(clips)):
        box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (folder / f"{number:06d}.mp4").write_bytes(clip + box)


def measure_ingest(url: str, folder: Path, clips: int, encoder: str) -> Ingestion:
    """Store the clips of a folder in a collection of their own, twice, each time by a new process.

    Raises:
        StoreError: not all clips were stored by the first run, or known to the second.
    """
    collection = f"benchmark-{uuid.uuid4().hex}"
    try:
        (first, used), (second, _) = (_in_new_process(url, collection, folder, encoder) for _ in range(2))
    finally:
        with QdrantStore(url) as store, store.translate_errors():
            store.client.delete_collection(collection)
    if (first.videos, second.present) != (clips, clips):
        raise StoreError(f"{clips} clips were to be stored, and then found:\n{first}\n{second}")
    return Ingestion(clips, clips / first.seconds, used, second.seconds)


def _in_new_process(url: str, collection: str, folder: Path, encoder: str) -> tuple[IngestReport, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(partial(_store_clips, url, collection, folder, encoder)).result()


def _store_clips(url: str, collection: str, folder: Path, encoder: str) -> tuple[IngestReport, float]:
    """Store a folder's clips; return the report, and the peak memory of this process in MiB."""
    with QdrantStore(url, collection) as store:
        report = ingest(store, folder, VideoEncoder.from_pretrained(encoder))
    return report, memory("self", "VmHWM")


if __name__ == "__main__":
    sys.exit(main())
