"""`dits-adapter embed`: texts and the videos that they describe into a cache to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_store,
    add_text_cleaning,
    add_vectors,
    chosen_store,
    video_encoder,
)
from dits_adapter.errors import InputError

__all__ = ["add_embed"]


def add_embed(commands: Any) -> None:
    """Add `embed`."""
    embed = commands.add_parser(
        "embed",
        help="embed texts and the videos that they describe into a cache to train on",
        description="Embed texts and videos, or read the videos' vectors from a collection. Killed, the same "
        "command goes on where it stopped. Exit code 3: done, but some videos have no vectors.",
    )
    embed.add_argument(
        "pairs", type=Path, metavar="PAIRS.jsonl", help='{"video": FILE, "text": TEXT or [TEXT, …]} a line'
    )
    add_encoder(embed)
    add_text_cleaning(embed)
    embed.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder of the cache")
    add_device(embed)
    embed.add_argument(
        "--videos", type=Path, metavar="FOLDER", help="folder of relative files (default: that of PAIRS.jsonl)"
    )
    embed.add_argument("--retry-failed", action="store_true", help="try videos again that failed before")
    store = embed.add_argument_group(
        "from a collection", 'read vectors instead of decoding; lines are then {"id": ID, "text": …}'
    )
    add_store(store, default=None)
    add_vectors(store, "--encoder")
    store.add_argument(
        "--id-field",
        default="video_id",
        metavar="FIELD",
        help='payload field with the ID; "" is the id of the segment itself (default: %(default)s)',
    )
    embed.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> int:
    from dits_adapter.data.embed import embed, embed_from_store
    from dits_adapter.data.pairs_file import PairsFile

    if args.store is not None and args.videos is not None:
        raise InputError("--videos is for files, --store for vectors from a collection; give one of them.")
    pairs = PairsFile(args.pairs, args.videos, files=args.store is None)  # refused before a model is loaded
    encoder = video_encoder(args)
    if args.store is None:
        report = embed(pairs, args.out, encoder, retry_failed=args.retry_failed)
    else:
        with chosen_store(args, encoder.space if args.trust_foreign else None) as store:
            report = embed_from_store(
                pairs,
                args.out,
                encoder.encoder,
                store,
                id_field=args.id_field,
                retry_failed=args.retry_failed,
            )
    print(report)
    return 3 if report.failures else 0
