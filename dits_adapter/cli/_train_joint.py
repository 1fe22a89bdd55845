"""`dits-adapter train-joint`: texts and video files into a jointly trained adapter with its CLIP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter._extras import require_modules
from dits_adapter.cli._options import add_recipe, read_recipe
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_train_joint"]


def add_train_joint(commands: Any) -> None:
    """Add `train-joint`."""
    joint = commands.add_parser(
        "train-joint",
        help="train CLIP, X-Pool head and alignment network together on video files",
        examples=("pairs.jsonl --encoder openai/clip-vit-large-patch14 --out my-joint --set epochs=3",),
        description="Train CLIP, X-Pool head and alignment network together on video files. The embedding space "
        "changes: the index has to be built anew, with the encoder that --out bundles. Killed, the same command "
        "goes on from its last checkpoint. On several GPUs: torchrun … -m dits_adapter.cli train-joint …",
    )
    joint.add_argument(
        "pairs", type=Path, metavar="PAIRS.jsonl", help='{"video": FILE, "text": TEXT or [TEXT, …]} a line'
    )
    joint.add_argument("--encoder", required=True, metavar="ID", help="the CLIP to start from: folder or hub id")
    joint.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the artifact; an old one is replaced"
    )
    joint.add_argument(
        "--validation", type=Path, metavar="PAIRS.jsonl", help="held-out pairs (default: a part of PAIRS.jsonl)"
    )
    add_recipe(joint, "deterministic", example="epochs=10, bf16=true, loss=both, sampler.steps=5")
    joint.add_argument(
        "--select",
        choices=("index", "xpool"),
        help="choose the checkpoint by what an index finds, or by X-Pool's scores of all videos, which no index "
        "holds (default: as the preset says, index but for paper and xpool)",
    )
    joint.add_argument("--log-dir", type=Path, metavar="FOLDER", help="TensorBoard event files")
    joint.set_defaults(run=_train_joint, needs=("accelerate", "av", "scipy", "sklearn", "yaml"))


def _train_joint(args: argparse.Namespace) -> Outcome | int:
    from torch import distributed

    from dits_adapter.training._processes import is_first
    from dits_adapter.training.config import JointRecipe
    from dits_adapter.training.joint.train import train_joint

    if args.select:
        args.set.append(f"select={args.select}")
    if args.log_dir:
        require_modules("--log-dir", "tensorboard")
    try:
        report = train_joint(
            args.pairs,
            read_recipe(JointRecipe, args),
            args.out,
            encoder=args.encoder,
            validation=args.validation,
            log_dir=args.log_dir,
        )
        tells = is_first()
    finally:
        if distributed.is_available() and distributed.is_initialized():  # by torchrun's processes
            distributed.destroy_process_group()
    return Outcome(report) if tells else 0
