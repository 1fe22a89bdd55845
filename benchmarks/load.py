"""`dits-adapter serve` under load: `python -m benchmarks.load --clients 1 8 64 200`.

A server of its own process searches generated vectors in a Qdrant server (from the binary at QDRANT_BIN), or in a
folder where that is not set. Clients send queries through HTTP, each the next one after an answer, and no text
twice, so that no cache helps. Beside it stands the encoder's own limit, measured in the same run while the server
is idle: texts a second through `encode_query`, one at a time and 32 at a time. All of them share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from pydantic import TypeAdapter

from benchmarks.generated import segment_row
from benchmarks.server import QdrantProcess
from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.cli import guarded
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.vectors import unit

STAGES = ("embed", "adapt", "store", "map")
BATCH = 32


@dataclass(frozen=True)
class Level:
    """Measurements with one number of clients.

    Attributes:
        clients: how many ask at a time.
        rate: answers a second.
        percentiles: seconds of an answer, by percent: 50, 95 and 99.
        stages: mean seconds of each stage of a search.
        failed: requests without an answer, or with another status than 200.
    """

    clients: int
    rate: float
    percentiles: dict[int, float]
    stages: dict[str, float]
    failed: int


@dataclass(frozen=True)
class Load:
    """Result of one run.

    Attributes:
        levels: one for each number of clients.
        encoder: texts a second that the encoder adapts alone, by texts a call.
        adapter: name of the adapter.
        segments: size of the collection.
        store: kind of the store.
        environment: processor and versions.
    """

    levels: list[Level]
    encoder: dict[int, float]
    adapter: str
    segments: int
    store: str
    environment: dict[str, str]

    def markdown(self) -> str:
        """Write the table as Markdown."""
        head = ["clients", "searches/s", "p50", "p95", "p99", *(f"{stage}, mean" for stage in STAGES), "failed"]
        cells = [
            [str(level.clients), f"{level.rate:.1f}"]
            + [f"{1e3 * seconds:.0f} ms" for seconds in level.percentiles.values()]
            + [f"{1e3 * level.stages[stage]:.0f} ms" for stage in STAGES]
            + [str(level.failed)]
            for level in self.levels
        ]
        alone = " and ".join(f"{rate:.0f} texts/s ({size} a call)" for size, rate in self.encoder.items())
        machine = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        about = f"{self.adapter}, {self.segments:,} generated segments in {self.store}. {machine}"
        return f"{about}\n\n{markdown_table(head, cells)}\n\nThe encoder alone, with its adapter: {alone}."


@guarded("benchmarks.load")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write load.json and load.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[1, 8, 64, 200],
        metavar="N",
        help="numbers of clients (1 8 64 200)",
    )
    parser.add_argument("--adapter", default="demo-dits", metavar="ID", help="folder or hub id (%(default)s)")
    parser.add_argument(
        "--segments", type=int, default=10_000, metavar="N", help="segments in the store (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/load"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    encoder = DITSQueryEncoder.from_pretrained(args.adapter, backend="torch")
    with tempfile.TemporaryDirectory() as scratch, _place(Path(scratch)) as store:
        _fill(store, encoder, args.segments)
        with _serving(args.adapter, store) as address:
            alone = {size: _encoder_rate(encoder, size, args.seconds / 4) for size in (1, BATCH)}
            levels = []
            for clients in args.clients:
                levels.append(asyncio.run(_ask(address, clients, args.seconds)))
                print(f"{clients} client(s): {levels[-1].rate:.1f} searches/s", file=sys.stderr)
    kind = "a Qdrant server" if store.startswith("http") else "a folder"
    load = Load(levels, alone, args.adapter, args.segments, kind, environment())
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "load.json").write_bytes(TypeAdapter(Load).dump_json(load, indent=1) + b"\n")
    (args.out / "load.md").write_text(load.markdown() + "\n", encoding="utf-8")
    print(load.markdown())
    return 0


@contextmanager
def _place(folder: Path) -> Iterator[str]:
    """Yield the location of an empty store."""
    if (binary := os.environ.get("QDRANT_BIN")) is None:
        yield str(folder / "store")
        return
    server = QdrantProcess(binary)
    try:
        yield server.url
    finally:
        server.remove()


def _fill(location: str, encoder: DITSQueryEncoder, segments: int) -> None:
    width = encoder.space.video.width
    with QdrantStore(location, "load") as store:
        store.create(CollectionMetadata(space=encoder.space))
        random = np.random.default_rng(0)
        for start in range(0, segments, 1000):
            count = min(1000, segments - start)
            vectors = unit(random.normal(size=(count, width)).astype(np.float32))
            store.write([segment_row(start + n, vector) for n, vector in enumerate(vectors)])


@contextmanager
def _serving(adapter: str, store: str) -> Iterator[str]:
    """Start `dits-adapter serve` and yield its address."""
    command = [sys.executable, "-m", "dits_adapter.cli", "serve", "--adapter", adapter, "--store", store]
    command += ["--collection", "load", "--port", "0", "--no-browser"]
    surroundings = {name: value for name, value in os.environ.items() if name != "DITS_ADAPTER_TOKEN"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+:\d+", server.stdout.readline())
            if found is None:
                raise RuntimeError("the server did not start; it said why above")
            httpx.get(f"{found[0]}/api/about", timeout=60).raise_for_status()
            yield found[0]
        finally:
            server.send_signal(signal.SIGTERM)


def _encoder_rate(encoder: DITSQueryEncoder, size: int, seconds: float) -> float:
    """Return texts a second."""
    texts = _texts("alone")
    encoder.encode_query(list(itertools.islice(texts, size)), batch_size=size)  # warms up
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() < started + seconds:
        encoder.encode_query(list(itertools.islice(texts, size)), batch_size=size)
        done += size
    return done / (time.perf_counter() - started)


def _texts(name: str) -> Iterator[str]:
    for number in itertools.count():
        yield f"someone in a red coat walks along a quiet street at night, {name} {number}"


async def _ask(address: str, clients: int, seconds: float) -> Level:
    """Send queries for some seconds."""
    taken: list[float] = []
    stages: list[dict[str, float]] = []
    failed = 0
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        started = time.perf_counter()

        async def client(number: int) -> None:
            nonlocal failed
            for text in _texts(f"{clients} {number}"):
                asked = time.perf_counter()
                try:
                    answer = (await http.get("/api/search", params={"query": text})).raise_for_status()
                except httpx.HTTPError:
                    failed += 1
                else:
                    taken.append(time.perf_counter() - asked)
                    stages.append(answer.json()["stages"])
                if time.perf_counter() >= started + seconds:
                    break

        await asyncio.gather(*map(client, range(clients)))
        elapsed = time.perf_counter() - started
    percents = (50, 95, 99)
    at = np.percentile(taken, percents) if taken else np.full(3, np.nan)
    means = {stage: float(np.mean([each[stage] for each in stages])) for stage in STAGES}
    return Level(clients, len(taken) / elapsed, dict(zip(percents, at.tolist(), strict=True)), means, failed)


if __name__ == "__main__":
    sys.exit(main())
