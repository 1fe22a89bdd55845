"""Options that name a collection and what searches it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.qdrant.store import QdrantStore


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
        "--collection", default="videos", metavar="NAME", help="in the store, or an alias (default: %(default)s)"
    )
    command.add_argument("--tenant", metavar="NAME", help="whose videos, in a collection that keeps tenants apart")


def add_query(command: Any) -> None:
    """Add the options that say what queries are made with, and which vectors they are compared to."""
    command.add_argument(
        "--adapter", default="demo-dits", metavar="ID", help="folder or hub id (default: %(default)s, bundled)"
    )
    command.add_argument(
        "--vector", metavar="NAME", default="video", help='which to search; "" is the unnamed one'
    )
    command.add_argument(
        "--trust-foreign",
        action="store_true",
        help="search a collection that something else made, whose vectors you know to be of the adapter's CLIP",
    )


def query_store(args: argparse.Namespace, space: EmbeddingSpace) -> QdrantStore:
    """Name the collection that the options of `add_store` and `add_query` say, for queries of a space."""
    from dits_adapter.stores.qdrant.store import QdrantStore

    return QdrantStore(
        args.store,
        args.collection,
        space=space,
        vector=args.vector,
        trust_foreign=args.trust_foreign,
        tenant=args.tenant,
    )
