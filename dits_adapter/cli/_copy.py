"""`dits-adapter copy`: a collection from a folder to a Qdrant server, back, or from one server to another."""

from __future__ import annotations

import argparse
from typing import Any

from dits_adapter.cli._entry import show
from dits_adapter.errors import InputError

__all__ = ["add_copy"]


def add_copy(commands: Any) -> None:
    """Add `copy`."""
    copy = commands.add_parser(
        "copy",
        help="copy a collection from a folder to a Qdrant server, or back",
        description="Copy a collection: points, vectors, payload, metadata and options. Nothing is embedded anew, "
        "and the source is not changed. It can be stopped at any time and started again: points that the "
        "destination has are compared and left. A destination of another embedding space, or with points that the "
        "source lacks, is refused; at the end the numbers of points are compared. The key of servers is "
        "QDRANT_API_KEY in the environment, the same for both.",
    )
    copy.add_argument("source", metavar="SOURCE", help="a folder or a Qdrant server's URL")
    copy.add_argument("destination", metavar="DESTINATION", help="likewise; a missing folder is made")
    copy.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the source (default: %(default)s)"
    )
    copy.add_argument("--to", metavar="NAME", help="its name in the destination (default: the same)")
    copy.set_defaults(run=_copy)


def _copy(args: argparse.Namespace) -> int:
    for place in (args.source, args.destination):
        if "://" in place and not place.lower().startswith(("http://", "https://")):
            raise InputError(f"{place}: copy is between Qdrant's servers and folders; ingest into other stores.")
    from dits_adapter.stores.qdrant.copy import copy_collection
    from dits_adapter.stores.qdrant.store import QdrantStore

    with (
        QdrantStore(args.source, args.collection) as source,
        QdrantStore(args.destination, args.to or args.collection) as destination,
    ):
        written = copy_collection(source, destination)
        show(f"copied {written:,} points; {destination.collection} in {destination.location} is complete")
    return 0
