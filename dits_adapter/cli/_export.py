"""`dits-adapter export`: an artifact with an ONNX form, for serving without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import show

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add `export`."""
    export = commands.add_parser(
        "export",
        help="write an adapter with its ONNX form and that of its CLIP's text tower",
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


def _export(args: argparse.Namespace) -> int:
    from dits_adapter._wording import validated
    from dits_adapter.backends._onnx_runtime import ADAPTER, TOWER, OnnxConfig
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.encoder import DITSQueryEncoder

    pairs = load_pairs(args.int8) if args.int8 else None
    encoder = DITSQueryEncoder.from_pretrained(args.adapter, backend="torch", encoder=args.encoder, device="cpu")
    folder = encoder.export_onnx(args.out, int8=pairs) / "onnx"
    quality = validated(OnnxConfig, (folder / "config.json").read_bytes()).quality
    if not (folder / TOWER).exists():
        show("no text tower was exported: embed texts elsewhere, and search with their vectors (search --vectors)")
    for name in (ADAPTER, TOWER):
        if files := list(folder.glob(f"{name}*")):
            show(f"{name}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    if quality:
        show(
            f"int8: R@1 {quality['r1_int8']:.1f}, with float32 {quality['r1_float32']:.1f}, on "
            f"{quality['queries']} held-out queries; cosine to float32 {quality['cosine_mean']:.5f}, at least "
            f"{quality['cosine_lowest']:.5f}"
        )
    show(f"written to {args.out}")
    return 0
