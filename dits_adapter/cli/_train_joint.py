"""`dits-adapter train-joint`: texts and video files into a jointly trained adapter with its CLIP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter._extras import require_modules
from dits_adapter.cli._options import add_recipe, read_recipe
from dits_adapter.cli._outcome import Outcome

if TYPE_CHECKING:
    from dits_adapter.data.pairs_file import PairsFile

__all__ = ["add_train_joint"]


def add_train_joint(commands: Any) -> None:
    """Add `train-joint`."""
    joint = commands.add_parser(
        "train-joint",
        help="train CLIP, X-Pool head and alignment network together on video files",
        examples=("pairs.jsonl --encoder openai/clip-vit-large-patch14 --out my-joint --set epochs=3",),
        description="Train CLIP, X-Pool head and alignment network together on video files. The embedding space "
        "changes: the index has to be built anew, with the encoder that --out bundles. It says after the first "
        "steps how long all take, and saves a checkpoint a minute: killed, the same command goes on from the last "
        "one. On several GPUs: torchrun … -m dits_adapter.cli train-joint …",
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


def _inputs(args: argparse.Namespace) -> tuple[PairsFile, PairsFile | None]:
    """Open the pairs, and those of the validation; look for the encoder and at the place of the artifact.

    Raises:
        ArtifactError: no such encoder, or something else than an artifact is at `--out`.
        InputError: no such file, or bad lines; or a place that cannot be written to.
    """
    from dits_adapter._hub import open_repository
    from dits_adapter.artifact._find import require_free
    from dits_adapter.data.pairs_file import PairsFile

    require_free(args.out.absolute())
    pairs = PairsFile(args.pairs)
    validation = None if args.validation is None else PairsFile(args.validation)
    open_repository(args.encoder)
    return pairs, validation


def _train_joint(args: argparse.Namespace) -> Outcome | int:
    if args.select:
        args.set.append(f"select={args.select}")
    if args.log_dir:
        require_modules("--log-dir", "tensorboard")
    pairs, validation = _inputs(args)
    # Seconds of imports, and so after what is refused without them.
    from torch import distributed

    from dits_adapter.training._processes import is_first
    from dits_adapter.training.config import JointRecipe

    recipe = read_recipe(JointRecipe, args)
    from dits_adapter.training.joint.captions import Captions
    from dits_adapter.training.joint.train import train_joint

    try:
        report = train_joint(
            Captions.read(pairs),
            recipe,
            args.out,
            encoder=args.encoder,
            dataset=args.pairs.name,
            validation=None if validation is None else Captions.read(validation),
            log_dir=args.log_dir,
            progress=not args.quiet,
        )
        tells = is_first()
    finally:
        if distributed.is_available() and distributed.is_initialized():  # by torchrun's processes
            distributed.destroy_process_group()
    return Outcome(report) if tells else 0
