"""`dits-adapter import`: vectors from files or a collection into a cache to train on."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_id_field,
    add_store,
    add_text_cleaning,
    add_text_encoder,
    add_vectors,
    chosen_store,
    declaration,
    described_space,
    place_options,
    require_store,
    video_encoder,
)
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_import"]


def add_import(commands: Any) -> None:
    """Add `import`."""
    command = commands.add_parser(
        "import",
        help="import vectors that you already have into a cache to train on",
        examples=(
            "texts.npy videos.npy --encoder openai/clip-vit-large-patch14 --out cache",
            "texts.parquet videos.parquet --encoder declared:acme/video-embed@3 --out cache",
        ),
        description="Import vectors of texts and videos from NumPy, Parquet or Arrow files, or of videos from a "
        "collection. If the texts are given, some vectors are compared with those of --encoder; warnings name the "
        "vectors that cannot be checked. An encoder that cannot be loaded, as one behind an API, is declared by "
        "name. Exit code 3: done, but the collection lacks some videos.",
    )
    command.add_argument(
        "texts",
        type=Path,
        metavar="TEXTS",
        help=".npy (n, d), or .parquet, .arrow, .feather: columns video_id, vector[, text, source, confidence]",
    )
    command.add_argument(
        "videos",
        type=Path,
        nargs="?",
        metavar="VIDEOS",
        help=".npy (m, d), or .parquet, .arrow, .feather: columns video_id, vector[, frames]; or --store",
    )
    add_encoder(command, declared=True)
    add_text_encoder(command, declared=True)
    add_text_cleaning(command)
    command.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder of the cache")
    add_device(command)
    beside = command.add_argument_group("beside .npy files")
    beside.add_argument(
        "--labels", type=Path, metavar="FILE.npy", help="row of each text's video (default: text i is of video i)"
    )
    beside.add_argument("--frame-vectors", type=Path, metavar="FILE.npy", help="(m, k, d)")
    beside.add_argument("--ids", type=Path, metavar="FILE.txt", help="names of the videos, one a line")
    beside.add_argument(
        "--captions", type=Path, metavar="FILE.txt", help="the texts, one a line; some are checked"
    )
    beside.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE.csv",
        help="in the place of labels and captions: columns video_id, text[, source, confidence], a row a text",
    )
    store = command.add_argument_group(
        "from a collection", "in the place of VIDEOS; the texts name their videos by id"
    )
    add_store(store, default=None)
    add_vectors(store, "--encoder")
    add_id_field(store)
    command.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> Outcome:
    from dits_adapter.data.cache_writer import require_cache_folder
    from dits_adapter.data.import_vectors import VectorFiles, import_vectors, read_widths

    if (args.videos is None) == (args.store is None):
        raise InputError("import: give VIDEOS, or the collection that they are in (--store); one of them.")
    require_store(args)
    require_cache_folder(args.out)  # before a model is loaded
    encoder = None
    if args.trust_foreign:
        if declaration(args.encoder) is not None:
            raise InputError(
                "--trust-foreign: describe the collection instead, once: "
                f"dits-adapter adopt --encoder {args.encoder} " + place_options(args)
            )
        encoder = video_encoder(args)
    trusted = None if encoder is None else encoder.space
    with nullcontext(args.videos) if args.store is None else chosen_store(args, trusted) as videos:
        files = VectorFiles(
            texts=args.texts,
            videos=videos,
            labels=args.labels,
            frames=args.frame_vectors,
            ids=args.ids,
            captions=args.captions,
            pairs=args.pairs,
            id_field=args.id_field,
        )
        space, texts = described_space(args, read_widths(files), encoder)
        report = import_vectors(files, args.out, space, texts)
    return Outcome(vars(report), str(report), code=3 if report.failures else 0)
