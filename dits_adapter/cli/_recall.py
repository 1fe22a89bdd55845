"""`dits-adapter recall`: share of the nearest segments that a collection's index finds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter._wording import counted
from dits_adapter.cli._options import add_query, add_store, qdrant_store
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_recall"]


def add_recall(commands: Any) -> None:
    """Add `recall`."""
    recall = commands.add_parser(
        "recall",
        help="measure the recall of a collection's index and quantization",
        examples=("queries.txt --store http://localhost:6333 --adapter my-adapter",),
        description="Search a Qdrant collection exactly, by its index with several efforts, and, if it is "
        "quantized, with and without rescoring; print the share of the nearest segments that each search finds, "
        "and its time. Plain and adapted queries are measured apart, since their recall differs.",
    )
    recall.add_argument("queries", type=Path, metavar="QUERIES.txt", help="texts to search with, one a line")
    add_store(recall)
    add_query(recall)
    recall.add_argument(
        "--limit", type=int, default=10, metavar="N", help="nearest segments (default: %(default)s)"
    )
    recall.set_defaults(run=_recall)


def _recall(args: argparse.Namespace) -> Outcome:
    from dits_adapter._user_files import entries
    from dits_adapter.encoder import DITSQueryEncoder, check_queries
    from dits_adapter.evaluation._tables import markdown_table
    from dits_adapter.stores.qdrant.recall import check_limit, measure_recall

    check_limit(args.limit)
    texts = [line for _, line in entries(args.queries)]
    if not texts:
        raise InputError(f"{args.queries}: holds no texts; one a line is expected.")
    check_queries(texts)
    encoder = DITSQueryEncoder.from_pretrained(
        args.adapter, device=args.device, text_cleaning=args.text_cleaning, videos=args.videos
    )
    head = ["search", f"recall@{args.limit}", "p50 ms", "p99 ms"]
    with qdrant_store(args, encoder.space) as store:
        store.open()
        kinds = {"plain": encoder.encode_document, "adapted": encoder.encode_query}
        if not encoder.space.shared:  # where there are no plain queries
            del kinds["plain"]
        measured = {name: measure_recall(store, encode(texts), limit=args.limit) for name, encode in kinds.items()}
        segments = store.count()
    size = f"{counted(len(texts), 'query', 'queries')}, {counted(segments, 'segment')}"
    blocks = []
    for name, rows in measured.items():
        cells = [[row.search, f"{row.recall:.4f}", f"{row.p50:.1f}", f"{row.p99:.1f}"] for row in rows]
        blocks.append(f"{name}: {size}\n\n{markdown_table(head, cells)}")
    figures = {"queries": len(texts), "segments": segments, "limit": args.limit, "plain": None, **measured}
    return Outcome(figures, "\n\n".join(blocks))
