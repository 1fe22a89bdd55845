"""`dits-adapter ingest`, `search` and `recall`: videos into a Qdrant collection, and texts that find them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli.settings import assignments
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.options import CollectionOptions
    from dits_adapter.stores.qdrant import QdrantStore


def add_store(command: Any) -> None:
    """Add the options that name a collection."""
    command.add_argument(
        "--store",
        default="video-index",
        metavar="WHERE",
        help="a folder, or a Qdrant server's URL (key: QDRANT_API_KEY in the environment) (default: %(default)s)",
    )
    add_collection(command)


def add_collection(command: Any) -> None:
    """Add the option that names a collection of a store."""
    command.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the store (default: %(default)s)"
    )


def add_query(command: Any) -> None:
    """Add the options that say what queries are made with, and which vectors they are compared to."""
    command.add_argument(
        "--adapter", default="demo-dits", metavar="ID", help="folder or hub id (default: %(default)s, bundled)"
    )
    command.add_argument(
        "--vector", metavar="NAME", default="video", help='which to search; "" is the unnamed one'
    )
    command.add_argument(
        "--trust-unstamped",
        action="store_true",
        help="search a collection that something else made, whose vectors you know to be of the adapter's CLIP",
    )


def query_store(args: argparse.Namespace, space: EmbeddingSpace) -> QdrantStore:
    """Name the collection that the options of `add_store` and `add_query` say, for queries of a space."""
    from dits_adapter.stores.qdrant import QdrantStore

    return QdrantStore(
        args.store, args.collection, space=space, vector=args.vector, trust_unstamped=args.trust_unstamped
    )


def add_ingest(commands: Any) -> None:
    """Add `ingest`."""
    ingest = commands.add_parser(
        "ingest",
        help="embed folders of videos into a Qdrant collection",
        description="Embed the videos of folders into a Qdrant collection. What is there is skipped: it can be "
        "stopped at any time and started again. Exit code 3: done, but some files could not be read.",
    )
    ingest.add_argument("paths", nargs="+", metavar="FOLDER", help="folders, or video files")
    add_store(ingest)
    ingest.add_argument(
        "--encoder",
        default="demo-clip",
        metavar="ID",
        help="folder or hub id of a CLIP, or of an adapter for its CLIP (default: %(default)s, bundled)",
    )
    ingest.add_argument("--frames", type=int, metavar="N", help="frames a segment (default: the adapter's, or 12)")
    ingest.add_argument(
        "--segment-seconds", type=float, metavar="S", help="cut videos into segments (default: one a video)"
    )
    ingest.add_argument("--overlap", type=float, default=0.0, metavar="S", help="of neighbouring segments")
    ingest.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="how a server keeps a new collection: float16=true, quantisation=scalar, on_disk=true, shards=3, "
        "replicas=2, …; may be repeated",
    )
    ingest.add_argument("--retry-failed", action="store_true", help="try unchanged files again that failed before")
    ingest.add_argument(
        "--sync", action="store_true", help="delete what is stored of files that are no longer in the folders"
    )
    ingest.set_defaults(run=_ingest)


def _ingest(args: argparse.Namespace) -> int:
    from dits_adapter.stores.qdrant import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames)
    with QdrantStore(args.store, args.collection) as store:
        report = store.ingest(
            args.paths,
            encoder,
            segment_seconds=args.segment_seconds,
            overlap=args.overlap,
            retry_failed=args.retry_failed,
            sync=args.sync,
            options=_options(args.option),
        )
    print(report)
    return 3 if report.failed else 0


def _options(given: Sequence[str]) -> CollectionOptions | None:
    from pydantic import ValidationError

    from dits_adapter.stores.options import CollectionOptions

    try:
        return CollectionOptions.model_validate(assignments("--option", given)) if given else None
    except ValidationError as error:
        raise InputError(f"--option: {error}") from None


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
    search.add_argument("--exact", action="store_true", help="compare with every segment, without the index")
    search.add_argument("--json", action="store_true", help="print JSON instead of lines")
    search.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder

    encoder = DITSQueryEncoder.from_pretrained(args.adapter)
    with query_store(args, encoder.space) as store:
        store.open()  # before the model is loaded: a wrong store is said at once
        vector = encoder.encode_document(args.query) if args.plain else encoder.encode_query(args.query)
        hits = store.search(vector, limit=args.limit, per_video=args.per_video, exact=args.exact)
    if args.json:
        print(json.dumps([asdict(hit) for hit in hits], indent=2))
    else:
        print("\n".join(map(str, hits)) or "the collection is empty")
    return 0


def add_recall(commands: Any) -> None:
    """Add `recall`."""
    recall = commands.add_parser(
        "recall",
        help="measure what a collection's index and quantisation cost",
        description="Search a server's collection exactly, by its index with several efforts, and, where it is "
        "quantised, with and without rescoring; print the share of the nearest segments that each finds, and its "
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
    from dits_adapter.stores.recall import measure_recall
    from dits_adapter.training.compare import markdown_table

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
