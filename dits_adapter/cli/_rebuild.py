"""`dits-adapter rebuild`: videos embedded anew behind an alias that is searched meanwhile."""

from __future__ import annotations

import argparse
from typing import Any

from dits_adapter.cli._ingest import add_videos, decode_limits, ingest_options
from dits_adapter.cli._options import qdrant_store, video_encoder
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_rebuild"]


def add_rebuild(commands: Any) -> None:
    """Add `rebuild`."""
    rebuild = commands.add_parser(
        "rebuild",
        help="embed the videos anew, for another CLIP, beside the collection that is searched",
        examples=("~/Videos --store http://localhost:6333 --encoder openai/clip-vit-large-patch14",),
        description="Ingest into a new collection on a Qdrant server, with another CLIP or other segments, and "
        "switch the alias --collection to it when it is complete. Searches go on meanwhile. Can be stopped and "
        "started again. Another adapter for the same CLIP needs no rebuild. Exit codes as for ingest.",
    )
    add_videos(rebuild)
    rebuild.add_argument("--drop-old", action="store_true", help="delete the old collection after the switch")
    rebuild.set_defaults(run=_rebuild, needs=("av",))


def _rebuild(args: argparse.Namespace) -> Outcome:
    from dits_adapter.stores._discover import require_paths
    from dits_adapter.stores.qdrant.aliases import rebuild

    limits, options = decode_limits(args), ingest_options(args)  # refused before a model is loaded
    require_paths(args.paths)
    with qdrant_store(args) as store:
        old = store.resolve()  # so is a server that is away
        report, new = rebuild(store, args.paths, video_encoder(args, limits), options, drop_old=args.drop_old)
    text = f"{report}\n{args.collection} is now {new}" + (f"; it was {old}" if old else "")
    figures = {"alias": args.collection, "collection": new, "old_collection": old, "ingestion": report}
    return Outcome(figures, text, code=3 if report.failed else 0)
