"""Candidates that a score bias needs, and its cost: `python -m benchmarks.bias --segments 100000`.

A search orders the segments of the best cosines anew, by cosine less bias. The table says which share of the ten
segments that are best of all it finds so. Segments, queries and the bank are drawn like CLIP's
(`benchmarks.generated`), from made-up moments or from those of the pairs in `--vectors`. With `--store` the
segments are also written to a new collection there, given their bias, and searched with it and without; where
a server orders the candidates, also with the client ordering them.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.generated import CHUNK, PER_VIDEO, PairModel
from benchmarks.halvings import read
from dits_adapter import BiasBank, CollectionMetadata, QdrantStore, SegmentRow, VideoStore, apply_bias, open_store
from dits_adapter.cli import guarded
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT

CANDIDATES = (50, 100, 200, 500, 1000, 2000)
BEST = 10
"""Segments that are looked for."""
UPLOAD = 500


def recalls(model: PairModel, bank: BiasBank, segments: int, queries: int) -> dict[int, tuple[float, float]]:
    """Compare with the ranking of all segments, by number of candidates.

    Returns:
        Shares, in percent, of the `BEST` best segments that are found, and of the best ones.
    """
    texts = model.queries(queries, segments)
    chunks = range(-(-segments // CHUNK))
    record = bank.record(model.segments(0))
    cosines = np.empty((queries, segments), np.float32)
    bias = np.empty(segments, np.float32)
    for chunk in chunks:
        rows = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, segments))
        vectors = model.segments(chunk)[: rows.stop - rows.start]
        cosines[:, rows] = texts @ vectors.T
        bias[rows] = bank.biases(vectors, record)
    places, first = [], []
    for row in cosines:
        best = np.argsort(-(row - BIAS_WEIGHT * bias), kind="stable")[:BEST]
        place = (row[None] > row[best][:, None]).sum(axis=1)  # by the cosine alone
        places.append(place)
        first.append(place[0])
    found = np.array(places)
    return {
        count: (100 * float((found < count).mean()), 100 * float((np.array(first) < count).mean()))
        for count in CANDIDATES
    }


def write(store: VideoStore, model: PairModel, segments: int) -> None:
    """Store segments without frame vectors."""
    store.create(CollectionMetadata(space=model.space))
    with store.bulk_load():
        for chunk in range(-(-segments // CHUNK)):
            vectors = model.segments(chunk)[: segments - chunk * CHUNK]
            rows = [_row(chunk * CHUNK + n, vector) for n, vector in enumerate(vectors)]
            for start in range(0, len(rows), UPLOAD):
                store.write(rows[start : start + UPLOAD])
    store.finish()


def _row(number: int, vector: NDArray[np.float32]) -> SegmentRow:
    at, video = float(number % PER_VIDEO), str(uuid.UUID(int=number // PER_VIDEO))
    segments = PER_VIDEO if number % PER_VIDEO == PER_VIDEO - 1 else None
    return SegmentRow(
        id=str(uuid.uuid5(uuid.UUID(int=0), str(number))),
        video_id=video,
        path=f"/{video}.mp4",
        start=at,
        end=at + 1,
        timestamps=(at,),
        duration=float(PER_VIDEO),
        fps=25.0,
        decoder="none",
        size=1,
        mtime_ns=1,
        segments=segments,
        vector=vector,
        frame_vectors=vector[:0, None],
    )


def milliseconds(store: VideoStore, queries: NDArray[np.float32], bias: float | None) -> float:
    """Return the median time of a search."""
    times = []
    for query in queries:
        started = time.perf_counter()
        store.search(query, bias=bias, locate=False)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


@guarded("benchmarks.bias")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and the times where there is a store."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bias",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--segments", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--bank", type=int, default=1000, metavar="N", help="queries in it, at most 1000 (default: %(default)s)"
    )
    parser.add_argument(
        "--vectors", type=Path, metavar="PATH", help="FILE.npy, (2, n, d), or a cache (default: made-up moments)"
    )
    parser.add_argument("--store", metavar="STORE", help="a folder or a Qdrant server's URL")
    args = parser.parse_args(argv)
    name = "vectors" if args.vectors is None else args.vectors.stem
    model = PairModel.standard(512) if args.vectors is None else PairModel.like(read(args.vectors), name)
    bank = BiasBank(model.pairs("training", args.bank).text, model.space, model.space.text.canaries)
    table = recalls(model, bank, args.segments, args.queries)
    print(f"{args.segments:,} segments, {args.queries} queries, a bank of {len(bank.vectors):,}; {model.source}\n")
    rows = [[f"{count:,}", f"{ten:.1f}", f"{one:.1f}"] for count, (ten, one) in table.items()]
    print(markdown_table(["candidates", f"of the best {BEST}", "of the best one"], rows))
    if args.store is not None:
        with open_store(args.store, f"bias-{uuid.uuid4().hex[:8]}") as store:
            write(store, model, args.segments)
            started = time.monotonic()
            apply_bias(store, bank)
            seconds = time.monotonic() - started
            texts = model.queries(args.queries, args.segments)
            plain, biased = (milliseconds(store, texts, weight) for weight in (0.0, None))
            print(
                f"\nbias of all segments: {seconds:.0f} s; a search: {plain:.1f} ms without, {biased:.1f} ms with"
            )
            if isinstance(store, QdrantStore) and store._collection.formulas:
                store._collection.formulas = False
                here = milliseconds(store, texts, None)
                print(f"with the candidates ordered by the client instead of the server: {here:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
