"""`dits-adapter embed`: texts and the videos that they describe into a cache to train on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from dits_adapter._extras import require_modules
from dits_adapter._wording import counted
from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_id_field,
    add_shard,
    add_store,
    add_text_cleaning,
    add_text_encoder,
    add_vectors,
    chosen_store,
    declaration,
    require_store,
    text_encoder,
    video_encoder,
)
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_embed"]


def add_embed(commands: Any) -> None:
    """Add `embed`."""
    embed = commands.add_parser(
        "embed",
        help="embed texts and the videos that they describe into a cache to train on",
        examples=(
            "pairs.jsonl --encoder openai/clip-vit-large-patch14 --out cache",
            "pairs.jsonl --encoder openai/clip-vit-large-patch14 --out cache --store video-index",
        ),
        description="Embed texts and videos, or read the videos' vectors from a collection. Killed, the same "
        "command goes on where it stopped. Exit code 3: done, but some videos have no vectors.",
    )
    embed.add_argument(
        "pairs",
        type=Path,
        metavar="PAIRS",
        help='.jsonl: {"video": FILE, "text": TEXT or [TEXT, …]} a line, with "start" and "end" for a span in '
        "seconds; or .csv: columns video and text",
    )
    add_encoder(embed, declared=True)
    add_text_encoder(embed)
    add_text_cleaning(embed)
    embed.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder of the cache")
    add_device(embed)
    embed.add_argument(
        "--videos", type=Path, metavar="FOLDER", help="folder of relative files (default: that of PAIRS)"
    )
    embed.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="C",
        help="leave out lines whose confidence is below (default: %(default)g)",
    )
    embed.add_argument("--retry-failed", action="store_true", help="try videos again that failed before")
    add_shard(embed, "into a cache of its own: for N machines, whose caches `dits-adapter merge` joins")
    store = embed.add_argument_group(
        "from a collection",
        'read vectors instead of decoding; lines are then {"id": ID, "text": …}, columns id and text',
    )
    add_store(store, default=None)
    add_vectors(store, "--encoder")
    add_id_field(store)
    embed.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> Outcome:
    from dits_adapter.data.cache_writer import require_cache_folder
    from dits_adapter.data.embed import embed, embed_from_store
    from dits_adapter.data.pairs_file import PairsFile
    from dits_adapter.sides import VideoSide

    if args.store is not None and args.videos is not None:
        raise InputError("--videos is for files, --store for vectors from a collection; give one of them.")
    require_store(args)
    if args.store is None:
        require_modules(f"dits-adapter {args.command}", "av")
    pairs = PairsFile(  # refused before a model is loaded
        args.pairs, args.videos, files=args.store is None, min_confidence=args.min_confidence
    )
    require_cache_folder(args.out, pairs.sha256)
    declared = declaration(args.encoder)
    if declared is not None and (args.store is None or args.text_encoder is None):
        raise InputError(
            f"--encoder {args.encoder}: an encoder that was declared embeds nothing; read the videos from a "
            "collection (--store), and name an encoder of the texts (--text-encoder)."
        )
    texts = text_encoder(args)
    encoder = None if declared is not None else video_encoder(args)
    if encoder is not None and args.store is None:
        report = embed(
            pairs,
            args.out,
            encoder,
            texts=texts,
            shared=args.shared_space,
            retry_failed=args.retry_failed,
            shard=args.shard,
        )
    else:
        trusted = encoder.space if encoder is not None and args.trust_foreign else None
        with chosen_store(args, trusted) as store:
            if declared is not None:
                videos = store.open().video
                VideoSide.declare(declared, videos.width, pooling="encoder").require(
                    videos, mine="--encoder", theirs=f"the collection {args.collection!r}"
                )
            report = embed_from_store(
                pairs,
                args.out,
                None if encoder is None else encoder.encoder,
                store,
                texts=texts,
                shared=args.shared_space,
                id_field=args.id_field,
                retry_failed=args.retry_failed,
                shard=args.shard,
            )
    text = str(report)
    if pairs.left_out:
        text += f"\nleft out  {counted(pairs.left_out, 'line')} of less confidence than {args.min_confidence:g}"
    figures = {**vars(report), "left_out": pairs.left_out}
    return Outcome(figures, text, _advice(args), code=3 if report.failures else 0)


def _advice(args: argparse.Namespace) -> str:
    """Return the commands that a cache is for."""
    cache = shlex.quote(str(args.out))
    if args.shard is not None:
        return f"Join the caches of all shards: dits-adapter merge {cache} OTHER --out CACHE"
    return (
        f"Compare all adapters on these pairs: dits-adapter compare {cache}\n"
        f"Train the usual one: dits-adapter train {cache} --out FOLDER"
    )
