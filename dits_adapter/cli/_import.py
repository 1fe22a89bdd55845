"""`dits-adapter import`: vectors from NumPy or Parquet files into a cache to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_text_cleaning,
    add_text_encoder,
    described_space,
)

__all__ = ["add_import"]


def add_import(commands: Any) -> None:
    """Add `import`."""
    command = commands.add_parser(
        "import",
        help="import vectors that you already have into a cache to train on",
        description="Import vectors of texts and videos from NumPy or Parquet files. If the texts are given, some "
        "vectors are compared with those of --encoder; warnings name the vectors that cannot be checked. An "
        "encoder that cannot be loaded, as one behind an API, is declared by name.",
    )
    command.add_argument(
        "texts", type=Path, metavar="TEXTS", help=".npy (n, d), or .parquet: video_id, vector[, text]"
    )
    command.add_argument(
        "videos", type=Path, metavar="VIDEOS", help=".npy (m, d), or .parquet: video_id, vector[, frames]"
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
        help="in the place of labels and captions: columns video_id and text, a row for each text vector",
    )
    command.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> int:
    from dits_adapter.data.import_vectors import VectorFiles, import_vectors, read_widths

    files = VectorFiles(
        texts=args.texts,
        videos=args.videos,
        labels=args.labels,
        frames=args.frame_vectors,
        ids=args.ids,
        captions=args.captions,
        pairs=args.pairs,
    )
    space, texts = described_space(args, read_widths(files))
    report = import_vectors(files, args.out, space, texts)
    print(report)
    return 0
