"""`dits-adapter ingest` and `dits-adapter search`: videos into a Qdrant collection, texts out of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_store(command: Any) -> None:
    """Add the options that name a collection."""
    command.add_argument(
        "--store",
        default="video-index",
        metavar="WHERE",
        help="a folder, or a Qdrant server's URL (key: QDRANT_API_KEY in the environment) (default: %(default)s)",
    )
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
    ingest.add_argument("--retry-failed", action="store_true", help="try unchanged files again that failed before")
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
        )
    print(report)
    return 3 if report.failed else 0


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
    search.add_argument("--json", action="store_true", help="print JSON instead of lines")
    search.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.stores.qdrant import QdrantStore

    encoder = DITSQueryEncoder.from_pretrained(args.adapter)
    with QdrantStore(
        args.store,
        args.collection,
        space=encoder.space,
        vector=args.vector,
        trust_unstamped=args.trust_unstamped,
    ) as store:
        store.open()  # before the model is loaded: a wrong store is said at once
        vector = encoder.encode_document(args.query) if args.plain else encoder.encode_query(args.query)
        hits = store.search(vector, limit=args.limit, per_video=args.per_video)
    if args.json:
        print(json.dumps([asdict(hit) for hit in hits], indent=2))
    else:
        print("\n".join(map(str, hits)) or "the collection is empty")
    return 0
