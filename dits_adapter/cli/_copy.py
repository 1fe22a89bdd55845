"""`dits-adapter copy`: a collection from one store to another."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

from dits_adapter.cli._outcome import Outcome

__all__ = ["add_copy"]


def add_copy(commands: Any) -> None:
    """Add `copy`."""
    copy = commands.add_parser(
        "copy",
        help="copy a collection from one store to another",
        examples=(
            "video-index http://localhost:6333",
            "video-index postgresql://me@localhost/films --to films",
        ),
        description="Copy a collection: segments, vectors, failures and metadata, and between Qdrant's folders "
        "and servers its options, too. Nothing is embedded anew, and the source is not changed. It can be stopped "
        "at any time and started again: what the destination has is compared and left. A destination of another "
        "embedding space, or with segments that the source lacks, is refused; at the end numbers are compared. "
        "The key of Qdrant servers is QDRANT_API_KEY in the environment, the same for both.",
    )
    copy.add_argument("source", metavar="SOURCE", help="a store, as --store of other commands has it")
    copy.add_argument("destination", metavar="DESTINATION", help="likewise; a missing folder is made")
    copy.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the source (default: %(default)s)"
    )
    copy.add_argument("--to", metavar="NAME", help="its name in the destination (default: the same)")
    copy.add_argument(
        "--tenant",
        metavar="NAME",
        help="whose videos, of a collection that keeps tenants apart (default: of all, between Qdrant's places)",
    )
    copy.set_defaults(run=_copy)


def _copy(args: argparse.Namespace) -> Outcome:
    from dits_adapter.stores.copying import copy_collection
    from dits_adapter.stores.open import open_store

    tenant = {} if args.tenant is None else {"tenant": args.tenant}
    with ExitStack() as opened:
        source = opened.enter_context(open_store(args.source, args.collection, **tenant))
        destination = opened.enter_context(open_store(args.destination, args.to or args.collection, **tenant))
        return Outcome(copy_collection(source, destination))
