"""Search of what is seen and of what is said, each alone and fused: `python -m benchmarks.lanes`.

The clips are the 300 generated test clips, none of them real video. What is said in each has nothing to do with
what is seen: four sentences of Python's own documentation, which is English that comes with Python, and one that
names a color, a shape and a place which the clip may not have. A third of the queries describe what is seen
(held-out captions), a third have half of the words of a sentence that is said, and a third do both. The table has
R@1 and R@5 of each third, in percent with intervals of 95 %: of each lane, of both as a search fuses them, and of
both by reciprocal ranks alone with two constants, 60 and 2 (Qdrant's own).

With `--store` the time of a search is measured instead, over `--segments` segments drawn like CLIP's, five of each
video, each with such a transcript, in a new collection there.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-untyped]

import numpy as np
from numpy.typing import NDArray

from benchmarks.bias import write
from benchmarks.clips.dataset import make_split
from benchmarks.clips.scenes import BACKGROUNDS, COLORS, SHAPES
from benchmarks.generated import PairModel
from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder, VideoStore, open_store
from dits_adapter.cli import guarded
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.stores.attaching import TimedText, attach_texts
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.requests import LANES, SEEN, Hit, ReadRequest
from dits_adapter.stores.text_lane import SAID

SENTENCES = 4
WAYS: Mapping[str, tuple[str, ...]] = {"seen": (SEEN,), "said": (SAID,), "fused": LANES}
"""Lanes of each row of the tables."""

WARM = 5
"""Searches that are not counted."""

CONSTANTS = (60, 2)
"""Constants of the fusion by ranks alone."""

_LEAST, _MOST = 8, 30
"""Words of a sentence."""


class Speech:
    """Transcripts, and queries by their words."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        paragraphs = (part for text in topics.values() for part in text.split("\n\n"))
        parts = (part for text in paragraphs for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())))
        whole = re.compile(r"[A-Z][^*|=<>{}\[\]]+\.")
        self._all = sorted({p for p in parts if _LEAST <= len(p.split()) <= _MOST and whole.fullmatch(p)})
        self._left: list[str] = []

    def next(self) -> tuple[list[str], str]:
        """Return what is said in one more video, and a query with half of the words of a sentence of it.

        No sentence is said twice before all were said.
        """
        if len(self._left) < SENTENCES:
            self._left = [self._all[n] for n in self._rng.permutation(len(self._all))]
        own = [self._left.pop() for _ in range(SENTENCES)]
        words = re.findall(r"\w+", str(self._rng.choice(own)))
        kept = sorted(self._rng.permutation(len(words))[: len(words) // 2])
        color, shape, place = (str(self._rng.choice(list(of))) for of in (COLORS, SHAPES, BACKGROUNDS))
        return [*own, f"Somebody had left a large {color} {shape} on the {place}."], " ".join(
            words[n] for n in kept
        )


def percent(hits: NDArray[np.bool_]) -> str:
    """Return a share of queries with its interval of 95 % (Wilson, 1927)."""
    n, share, z = len(hits), float(hits.mean()), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{100 * share:.1f} ({100 * (middle - half):.1f} to {100 * (middle + half):.1f})"


def quality(out: Path, seed: int) -> str:
    """Return the table of R@1 and R@5 on generated clips."""
    records = make_split("test", out / "clips")
    encoder = DITSQueryEncoder.from_pretrained("demo-linear")
    speech, rng = Speech(seed), np.random.default_rng([seed, 1])
    said = {record.video: speech.next() for record in records}
    captions = {record.video: str(rng.choice(record.captions)) for record in records}
    queries = {
        "what is seen": captions,
        "what is said": {video: query for video, (_, query) in said.items()},
        "both": {video: f"{captions[video]}, {query}" for video, (_, query) in said.items()},
    }
    rows = []
    with QdrantStore(out / "lanes", "demo") as store:
        print(ingest(store, out / "clips" / "test", VideoEncoder.from_pretrained("demo-clip")))
        texts = [TimedText(video, line) for video, (lines, _) in said.items() for line in lines]
        print(attach_texts(store, texts))
        for kind, of_kind in queries.items():
            vectors = encoder.encode_query(list(of_kind.values()))
            found = {way: _search(store, vectors, of_kind, lanes) for way, lanes in WAYS.items()}
            for k in CONSTANTS:
                found[f"ranks alone, k = {k}"] = [_by_ranks(hits, k) for hits in found["fused"]]
            for way, answers in found.items():
                places = [[Path(hit.path or "").name for hit in hits[:5]] for hits in answers]
                ranks = np.array([of.index(v) if v in of else 5 for of, v in zip(places, of_kind, strict=True)])
                rows.append([kind, way, percent(ranks < 1), percent(ranks < 5)])
    return markdown_table(["queries of", "lanes", "R@1", "R@5"], rows)


def _search(
    store: VideoStore, vectors: NDArray[np.floating], texts: Mapping[str, str], lanes: Sequence[str]
) -> list[list[Hit]]:
    said = list(texts.values()) if SAID in lanes else None
    return store.search_batch(vectors, lanes=lanes, texts=said, limit=200, locate=False)


def _by_ranks(hits: Sequence[Hit], k: int) -> list[Hit]:
    return sorted(hits, key=lambda hit: -sum(1 / (k + lane.rank) for lane in hit.lanes.values()))


def latency(address: str, segments: int, queries: int) -> str:
    """Return the table of the time of a search in each lane, in a new collection at an address."""
    model, speech = PairModel.standard(512), Speech(0)
    with open_store(address, f"lanes-{uuid.uuid4().hex[:8]}".replace("-", "_"), space=model.space) as store:
        write(store, model, segments)
        texts, asked = [], []
        for segment in store.read(ReadRequest()):
            lines, query = speech.next()
            texts.append(TimedText(str(segment.id), "\n".join(lines)))
            asked.append(query)
        started = time.perf_counter()
        attach_texts(store, texts)
        attached = time.perf_counter() - started
        vectors = model.queries(queries, segments)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for n in range(queries):
            for way, lanes in WAYS.items():  # in turns, so that whatever else runs slows all alike
                said = [asked[n]] if SAID in lanes else None
                started = time.perf_counter()
                store.search(vectors[n], lanes=lanes, texts=said)
                times[way].append(1000 * (time.perf_counter() - started))
        if isinstance(store, QdrantStore) and store.capabilities.remote:
            store.client.delete_collection(store.collection)
    rows = []
    for way, of in times.items():
        p50, p95 = np.percentile(of[WARM:], (50, 95))
        rows.append([way, f"{p50:.1f}", f"{p95:.1f}", f"{p50 / np.median(times['seen'][WARM:]):.2f}"])
    head = ["lanes", "p50 ms", "p95 ms", "of seen"]
    return f"{segments / attached:,.0f} texts a second\n\n{markdown_table(head, rows)}"


@guarded("benchmarks.lanes")
def main(argv: Sequence[str] | None = None) -> int:
    """Print one of the tables; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lanes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="default: %(default)s")
    parser.add_argument("--store", metavar="STORE", help="address of a store: measure the time of searches in it")
    parser.add_argument(
        "--segments", type=int, default=20_000, metavar="N", help="of --store (default: %(default)s)"
    )
    parser.add_argument("--queries", type=int, default=200, metavar="N", help="of --store (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is said (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.store is not None:
        print(latency(args.store, args.segments, args.queries))
    else:
        print(quality(args.out, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
