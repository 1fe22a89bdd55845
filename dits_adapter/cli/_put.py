"""`dits-adapter put`: vectors of a cache into a collection."""

from __future__ import annotations

import argparse
from typing import Any

from dits_adapter._wording import counted, without_password
from dits_adapter.cli._options import add_pairs, add_store, chosen_store
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_put"]


def add_put(commands: Any) -> None:
    """Add `put`."""
    put = commands.add_parser(
        "put",
        help="store the video vectors of a cache in a collection, to be searched",
        examples=("cache --store video-index",),
        description="Store the vectors of a cache's videos in a collection, one segment a video; hits show the "
        "cache's ids. For videos that were embedded elsewhere: `dits-adapter ingest` embeds them here.",
    )
    add_pairs(put, "vectors of `dits-adapter import` or `embed`")
    add_store(put)
    put.set_defaults(run=_put)


def _put(args: argparse.Namespace) -> Outcome:
    from dits_adapter.data.cache import EmbeddingCache
    from dits_adapter.data.put import put_videos

    cache = EmbeddingCache(args.pairs)
    with chosen_store(args) as store:
        stored = put_videos(store, cache)
    place = {"store": without_password(args.store), "collection": args.collection}
    text = f"{counted(stored, 'video is', 'videos are')} stored in {place['store']}, collection {args.collection}"
    return Outcome({"videos": stored, **place}, text)
