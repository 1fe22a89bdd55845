"""`dits-adapter export`: an artifact with an ONNX form, for serving without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._outcome import Outcome

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add `export`."""
    export = commands.add_parser(
        "export",
        help="write an adapter with its ONNX form and that of its CLIP's text tower",
        examples=("my-adapter --out my-onnx-adapter",),
        description='Write an artifact that DITSQueryEncoder.from_pretrained(FOLDER, backend="onnx") runs on ONNX '
        "Runtime, without torch.",
    )
    export.add_argument("adapter", metavar="ADAPTER", help="folder, bundled name or hub id of a trained adapter")
    export.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the artifact; an old one is replaced"
    )
    export.add_argument(
        "--encoder", metavar="ID", help="folder or hub id of its CLIP, if the artifact does not lead to it"
    )
    export.add_argument(
        "--int8",
        type=Path,
        metavar="CACHE",
        help="int8 weights in the adapter, calibrated on one half of these held-out pairs, measured on the other, "
        "and refused if they cost too much",
    )
    export.set_defaults(run=_export, needs=("onnx", "onnxscript"))


def _export(args: argparse.Namespace) -> Outcome:
    from dits_adapter.tasks.export import export_artifact

    return Outcome(export_artifact(args.adapter, args.out, encoder=args.encoder, int8=args.int8))
