"""`dits-adapter train`: cached pairs in, artifact out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dits_adapter.cli.settings import add_settings, assignments

if TYPE_CHECKING:
    from dits_adapter.training.config import BaseRecipe

R = TypeVar("R", bound="BaseRecipe")


def add_train(commands: Any) -> None:
    """Add `train`."""
    train = commands.add_parser(
        "train",
        help="train an adapter on cached (text, video) vectors",
        description="Train an adapter on cached (text, video) vectors; CLIP and the stored index stay. "
        "Exit code 4: trained, but not better than what is there, and --promote-if-better was given.",
    )
    train.add_argument("pairs", type=Path, metavar="CACHE", help="what `dits-adapter embed` wrote")
    train.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the artifact; replaced if there")
    add_recipe_arguments(train, "best", example="adapter=ridge, training.epochs=10, sampler.steps=5")
    train.add_argument("--test", type=Path, metavar="CACHE", help="held-out pairs (default: a part of CACHE)")
    train.add_argument(
        "--test-fraction", type=float, default=0.1, metavar="F", help="of the videos (default: %(default)s)"
    )
    train.add_argument(
        "--promote-if-better",
        action="store_true",
        help="write only if R@1 beats the adapter at --out (plain CLIP if none) by more than noise",
    )
    train.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")
    train.add_argument("--log-dir", type=Path, metavar="FOLDER", help="TensorBoard event files")
    train.add_argument("--curve", type=Path, metavar="FILE.png", help="picture of loss and held-out recall")
    train.set_defaults(run=_train)


def add_recipe_arguments(parser: argparse.ArgumentParser, preset: str, example: str) -> None:
    """Add what `read_recipe` reads."""
    parser.add_argument("--preset", default=preset, help="the recipe to start from (default: %(default)s)")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="fields that differ from the preset")
    add_settings(parser, f"one field that differs: {example}")


def read_recipe(kind: type[R], args: argparse.Namespace) -> R:
    """Build the recipe that the arguments describe.

    Raises:
        InputError: a setting without an equals sign, an unknown preset, field or value.
    """
    return kind.read(args.preset, args.config, assignments("--set", args.set))


def _train(args: argparse.Namespace) -> int:
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.training.config import Recipe
    from dits_adapter.training.curve import training_curve
    from dits_adapter.training.run import train_artifact

    recipe = read_recipe(Recipe, args)
    report = train_artifact(
        load_pairs(args.pairs),
        recipe,
        args.out,
        dataset=args.pairs.name,
        test=load_pairs(args.test) if args.test else None,
        test_fraction=args.test_fraction,
        only_if_better=args.promote_if_better,
        device=args.device,
        log_dir=args.log_dir,
    )
    gain = report.differences["r1"]
    print(
        f"{recipe.adapter}: R@1 {report.metrics.r1:.1f}, R@5 {report.metrics.r5:.1f}, "
        f"R@10 {report.metrics.r10:.1f} on {report.metrics.n} held-out queries; R@1 {gain.difference:+.1f} "
        f"[{gain.low:+.1f}, {gain.high:+.1f}] against {report.incumbent}"
    )
    if args.curve and report.history:
        training_curve(report.history, args.curve)
        print(f"training curve: {args.curve}")
    if report.written is None:
        print(f"not better than {report.incumbent} by more than noise: nothing written")
        return 4
    print(f"written to {report.written}")
    return 0
