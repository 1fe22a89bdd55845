"""`dits-adapter search` and `recall`: texts that find videos, and what the index costs."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.stores.qdrant.store import QdrantStore

from dits_adapter.cli.store_options import add_query, add_store, query_store


def add_search(commands: Any) -> None:
    """Add `search`."""
    search = commands.add_parser(
        "search",
        help="find the videos that a text describes",
        description="Find the videos that a text describes, with an adapter or with plain CLIP.",
    )
    search.add_argument("query", metavar="TEXT")
    add_store(search)
    add_query(search)
    search.add_argument("--plain", action="store_true", help="the adapter's CLIP without the adapter")
    search.add_argument("--limit", type=int, default=10, metavar="N", help="videos (default: %(default)s)")
    search.add_argument(
        "--per-video", type=int, default=1, metavar="N", help="segments of each (default: %(default)s)"
    )
    search.add_argument(
        "--offset", type=int, default=0, metavar="N", help="videos to leave out, for the next page"
    )
    search.add_argument(
        "--rerank",
        choices=("maxsim", "xpool"),
        help="order the best segments by their frames: by the nearest one, or by the X-Pool head of an adapter "
        "that was trained jointly",
    )
    search.add_argument(
        "--candidates", type=int, metavar="N", help="segments to re-rank, of many videos (default: a hundred)"
    )
    search.add_argument(
        "--min-probability",
        type=_probability,
        metavar="P",
        help="only videos that are the right one with at least this probability (see `dits-adapter calibrate`)",
    )
    search.add_argument("--exact", action="store_true", help="compare with every segment, without the index")
    search.add_argument("--json", action="store_true", help="print JSON instead of lines")
    search.set_defaults(run=_search)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def _search(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.stores.base import SearchRequest

    if args.candidates is not None and args.rerank is None:
        raise InputError("--candidates: nothing is re-ranked; say how, with --rerank.")
    head = args.rerank == "xpool"
    encoder = DITSQueryEncoder.from_pretrained(args.adapter, backend="torch" if head else "auto")
    if head and encoder.artifact.xpool is None:
        raise InputError(
            f"--rerank xpool: the adapter {args.adapter} has no X-Pool head, which comes with joint training "
            "(dits-adapter train-joint); --rerank maxsim needs none."
        )
    with query_store(args, encoder.space) as store:
        store.open()  # before the model is loaded: a wrong store is said at once
        vector = encoder.encode_document(args.query) if args.plain else encoder.encode_query(args.query)
        calibration = encoder.calibration if store.cosine and not args.plain else None
        videos = store.count_videos() if calibration else 0
        min_score = None
        if args.min_probability is not None:
            if calibration is None:
                raise InputError(_why_no_probability(args, store))
            min_score = calibration.score_of(args.min_probability, videos=videos)
        hits = store.search(
            vector,
            limit=args.limit,
            per_video=args.per_video,
            offset=args.offset,
            min_score=min_score,
            exact=args.exact,
            rerank=encoder.xpool_reranker(args.query, vector) if head else args.rerank,
            candidates=SearchRequest().candidates if args.candidates is None else args.candidates,
        )
        if args.rerank:  # whose scores are no cosines of pooled vectors
            calibration = None
    probabilities = [calibration.probability(hit.score, videos=videos) if calibration else None for hit in hits]
    if args.json:
        found = zip(hits, probabilities, strict=True)
        print(json.dumps([{**asdict(hit), "probability": likely} for hit, likely in found], indent=2))
    elif hits:
        for hit, likely in zip(hits, probabilities, strict=True):
            print(hit if likely is None else f"{likely:6.1%}  {hit}")
    else:
        print("nothing was found" if min_score is None else "no video is that likely")
    return 0


def _why_no_probability(args: argparse.Namespace, store: QdrantStore) -> str:
    if args.plain:
        return "--min-probability: probabilities are calibrated for adapted queries; leave out --plain."
    if not store.cosine:
        return (
            f"--min-probability: scores of the collection {args.collection!r} are no cosines, of which alone "
            "probabilities are known."
        )
    return (
        f"--min-probability: the adapter {args.adapter} was not calibrated. Calibrate it on pairs that it was not "
        f"trained on: dits-adapter calibrate CACHE {args.adapter} --out FOLDER"
    )


def add_recall(commands: Any) -> None:
    """Add `recall`."""
    recall = commands.add_parser(
        "recall",
        help="measure what a collection's index and quantization cost",
        description="Search a collection exactly, by its index with several efforts, and, where it is "
        "quantized, with and without rescoring; print the share of the nearest segments that each finds, and its "
        "time. For plain and for adapted queries: they lie elsewhere, and their recall differs.",
    )
    recall.add_argument("queries", type=Path, metavar="QUERIES.txt", help="texts to search with, one a line")
    add_store(recall)
    add_query(recall)
    recall.add_argument(
        "--limit", type=int, default=10, metavar="N", help="nearest segments (default: %(default)s)"
    )
    recall.set_defaults(run=_recall)


def _recall(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.evaluation.tables import markdown_table
    from dits_adapter.stores.qdrant.recall import measure_recall

    try:
        texts = [line for line in args.queries.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{args.queries}: cannot be read as text ({error}).") from None
    encoder = DITSQueryEncoder.from_pretrained(args.adapter)
    head = ["search", f"recall@{args.limit}", "p50 ms", "p99 ms"]
    with query_store(args, encoder.space) as store:
        store.open()
        for name, vectors in (("plain", encoder.encode_document(texts)), ("adapted", encoder.encode_query(texts))):
            rows = [
                [row.search, f"{row.recall:.4f}", f"{row.p50:.1f}", f"{row.p99:.1f}"]
                for row in measure_recall(store, vectors, limit=args.limit)
            ]
            print(f"\n{name}: {len(texts):,} queries, {store.count():,} segments\n\n{markdown_table(head, rows)}")
    return 0
