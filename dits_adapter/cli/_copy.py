"""`dits-adapter copy`: a collection from one store to another."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._outcome import Outcome

if TYPE_CHECKING:
    from dits_adapter.stores.base import VideoStore

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
    from dits_adapter.stores.open import open_store

    tenant = {} if args.tenant is None else {"tenant": args.tenant}
    with ExitStack() as opened:
        source = opened.enter_context(open_store(args.source, args.collection, **tenant))
        destination = opened.enter_context(open_store(args.destination, args.to or args.collection, **tenant))
        written, what = _copied(source, destination)
        place = {"store": destination.location, "collection": destination.collection}
    text = f"copied {written:,} {what}; {place['collection']} in {place['store']} is complete"
    return Outcome({"copied": written, "unit": what, **place}, text)


def _copied(source: VideoStore, destination: VideoStore) -> tuple[int, str]:
    """Copy in Qdrant's own terms between two of its places; otherwise in those of all stores."""
    if not (_is_qdrant(source) and _is_qdrant(destination)):
        from dits_adapter.stores.copying import copy_segments

        return copy_segments(source, destination), "segments"
    from dits_adapter.stores.qdrant.copy import copy_collection
    from dits_adapter.stores.qdrant.store import QdrantStore

    assert isinstance(source, QdrantStore)
    assert isinstance(destination, QdrantStore)
    return copy_collection(source, destination), "points"


def _is_qdrant(store: VideoStore) -> bool:
    return type(store).__module__.startswith("dits_adapter.stores.qdrant.")
