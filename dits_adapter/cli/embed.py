"""`dits-adapter embed` and `dits-adapter import`: texts and videos, or their vectors, into a cache to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli.store_options import add_collection
from dits_adapter.errors import InputError


def _add_common(command: Any) -> None:
    command.add_argument(
        "--encoder",
        required=True,
        metavar="ID",
        help="folder or hub id of a CLIP, or of an adapter for its CLIP (demo-clip is bundled)",
    )
    command.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder of the cache")
    command.add_argument("--frames", type=int, metavar="N", help="frames a video (default: the adapter's, or 12)")
    command.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")


def add_embed(commands: Any) -> None:
    """Add `embed`."""
    embed = commands.add_parser(
        "embed",
        help="embed texts and the videos that they describe into a cache to train on",
        description="Embed texts and videos, or take the videos' vectors from a Qdrant collection. Killed, the "
        "same command goes on where it stopped. Exit code 3: done, but some videos could not be had.",
    )
    embed.add_argument(
        "pairs", type=Path, metavar="PAIRS.jsonl", help='{"video": FILE, "text": TEXT or [TEXT, …]} a line'
    )
    _add_common(embed)
    embed.add_argument(
        "--videos", type=Path, metavar="FOLDER", help="where relative files are (default: beside PAIRS.jsonl)"
    )
    embed.add_argument("--retry-failed", action="store_true", help="try videos again that failed before")
    store = embed.add_argument_group(
        "from Qdrant", 'take vectors instead of decoding; lines are {"id": ID, "text": …} then'
    )
    store.add_argument(
        "--store", metavar="WHERE", help="a folder, or a server's URL (key: QDRANT_API_KEY in the environment)"
    )
    add_collection(store)
    store.add_argument(
        "--vector",
        default="video",
        metavar="NAME",
        help='the pooled one; "" is the unnamed one (default: %(default)s)',
    )
    store.add_argument(
        "--id-field",
        default="video_id",
        metavar="FIELD",
        help='payload field with the ID; "" is the point\'s own id (default: %(default)s)',
    )
    store.add_argument(
        "--trust-foreign",
        action="store_true",
        help="a collection that something else made, whose vectors you know to be of --encoder",
    )
    embed.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> int:
    from dits_adapter.data.embed import embed, embed_from_store
    from dits_adapter.stores.qdrant.store import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

    if args.store is not None and args.videos is not None:
        raise InputError("--videos is for files, --store for vectors from a collection; give one of them.")
    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames, device=args.device)
    if args.store is None:
        report = embed(args.pairs, args.out, encoder, videos=args.videos, retry_failed=args.retry_failed)
    else:
        space = encoder.space if args.trust_foreign else None
        with QdrantStore(
            args.store,
            args.collection,
            space=space,
            vector=args.vector,
            trust_foreign=args.trust_foreign,
            tenant=args.tenant,
        ) as store:
            report = embed_from_store(
                args.pairs,
                args.out,
                encoder.clip,
                store,
                id_field=args.id_field,
                retry_failed=args.retry_failed,
            )
    print(report)
    return 3 if report.failures else 0


def add_import(commands: Any) -> None:
    """Add `import`."""
    command = commands.add_parser(
        "import",
        help="take vectors that you already have into a cache to train on",
        description="Take vectors of texts and videos from NumPy or Parquet files. That they are of --encoder can "
        "be checked if the texts are given; warnings say what could not be.",
    )
    command.add_argument(
        "texts", type=Path, metavar="TEXTS", help=".npy (n, d), or .parquet: video_id, vector[, text]"
    )
    command.add_argument(
        "videos", type=Path, metavar="VIDEOS", help=".npy (m, d), or .parquet: video_id, vector[, frames]"
    )
    _add_common(command)
    beside = command.add_argument_group("beside .npy files")
    beside.add_argument(
        "--labels", type=Path, metavar="FILE.npy", help="row of each text's video (default: text i is of video i)"
    )
    beside.add_argument("--frame-vectors", type=Path, metavar="FILE.npy", help="(m, k, d)")
    beside.add_argument("--ids", type=Path, metavar="FILE.txt", help="names of the videos, one a line")
    beside.add_argument(
        "--captions", type=Path, metavar="FILE.txt", help="the texts, one a line; some are checked"
    )
    command.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> int:
    from dits_adapter.data.import_vectors import VectorFiles, import_vectors
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames, device=args.device)
    files = VectorFiles(
        texts=args.texts,
        videos=args.videos,
        labels=args.labels,
        frames=args.frame_vectors,
        ids=args.ids,
        captions=args.captions,
    )
    report = import_vectors(files, args.out, encoder.clip, frames_sampled=encoder.frames)
    print(report)
    return 0
