"""`dits-adapter distill`: a trained DITS into one of fewer steps or with a smaller network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._early import check_paths
from dits_adapter.cli._options import add_device, add_held_out, add_pairs, add_settings, assignments
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_distill"]


def add_distill(commands: Any) -> None:
    """Add `distill`."""
    distill = commands.add_parser(
        "distill",
        help="train a DITS of fewer steps, or with a smaller network, to imitate a trained one",
        examples=("cache my-adapter --out my-small-adapter --steps 1 --depth 2",),
        description="Train a student on the trajectories of a trained DITS and on the contrastive loss. A killed "
        "run goes on where it stopped. Exit code 4: R@1 on held-out pairs is below the teacher's by more than "
        "noise, and nothing was written.",
    )
    add_pairs(distill, "the pairs that the teacher was trained on")
    distill.add_argument("teacher", metavar="ADAPTER", help="folder, bundled name or hub id of a trained DITS")
    distill.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the artifact; an old one is replaced"
    )
    distill.add_argument(
        "--steps", type=int, default=1, metavar="T'", help="of the student (default: %(default)s)"
    )
    distill.add_argument("--depth", type=int, metavar="N", help="blocks of its network (default: the teacher's)")
    distill.add_argument(
        "--mlp-ratio", type=float, metavar="R", help="hidden width of its MLPs over d (default: the teacher's)"
    )
    distill.add_argument(
        "--trajectory-weight",
        type=float,
        default=10.0,
        metavar="W",
        help="weight of the distance to the teacher's path beside the contrastive loss; 0 shows what a student "
        "learns without a teacher (default: %(default)g)",
    )
    add_settings(distill, "one field of the optimization: epochs=10, batch_size=64, seed=1")
    add_held_out(distill)
    add_device(distill)
    distill.set_defaults(run=_distill, needs=("scipy", "sklearn", "yaml"))


def _distill(args: argparse.Namespace) -> Outcome:
    check_paths(args.pairs, args.test, adapter=args.teacher, artifact=args.out)
    from dits_adapter.training.config import Recipe
    from dits_adapter.training.distill import distill

    settings = {f"training.{name}": value for name, value in assignments("--set", args.set).items()}
    result = distill(
        args.teacher,
        args.pairs,
        args.out,
        steps=args.steps,
        depth=args.depth,
        mlp_ratio=args.mlp_ratio,
        trajectory_weight=args.trajectory_weight,
        training=Recipe.read("deterministic", settings=settings).training,
        test=args.test,
        test_fraction=args.test_fraction,
        device=args.device,
    )
    return Outcome(result, code=4 if result.written is None else 0)
