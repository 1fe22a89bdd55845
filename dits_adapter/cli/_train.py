"""`dits-adapter train`: cached pairs into a trained adapter."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter._extras import require_modules
from dits_adapter.cli._early import check_paths
from dits_adapter.cli._options import add_device, add_held_out, add_pairs, add_recipe, read_recipe
from dits_adapter.cli._outcome import Outcome

if TYPE_CHECKING:
    from dits_adapter.adapters import Adapter

__all__ = ["add_train"]


def add_train(commands: Any) -> None:
    """Add `train`."""
    train = commands.add_parser(
        "train",
        help="train an adapter on cached (text, video) vectors",
        examples=(
            "cache --out my-adapter",
            "cache --out my-adapter --preset deterministic --set training.epochs=10 --promote-if-better",
        ),
        description="Train an adapter on cached (text, video) vectors; CLIP and the index stay as they are. "
        "Exit code 4: trained, but not better than the present adapter, and --promote-if-better was given. On "
        "several GPUs or machines: torchrun … -m dits_adapter.cli train …",
    )
    add_pairs(train)
    train.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the artifact; an old one is replaced"
    )
    add_recipe(train, "best", example="adapter=ridge, training.epochs=10, sampler.steps=5")
    train.add_argument(
        "--bank",
        action="store_true",
        help="put a bank of the texts behind the adapter, each adapted by one that has not seen its video; it "
        "pushes down the videos of CACHE, so they should not be in the collection",
    )
    add_held_out(train)
    train.add_argument(
        "--promote-if-better",
        action="store_true",
        help="write only if R@1 beats the adapter at --out (plain CLIP if none) by more than noise",
    )
    add_device(train)
    train.add_argument("--log-dir", type=Path, metavar="FOLDER", help="TensorBoard event files")
    train.add_argument("--curve", type=Path, metavar="FILE.png", help="plot of loss and held-out recall")
    train.set_defaults(run=_train, needs=("scipy", "sklearn", "yaml"))


def _train(args: argparse.Namespace) -> Outcome | int:
    from dits_adapter.evaluation._figures import check_figure

    if args.curve:
        check_figure(args.curve, "--curve")
    if args.log_dir:
        require_modules("--log-dir", "tensorboard")
    check_paths(args.pairs, args.test, artifact=args.out)
    from dits_adapter.training._curve import training_curve
    from dits_adapter.training._processes import count, is_first, processes
    from dits_adapter.training.config import Recipe
    from dits_adapter.training.run import train_artifact

    if args.bank:
        args.set.append("bank=queries")
    recipe = read_recipe(Recipe, args)
    with processes(args.device) as device:
        report = train_artifact(
            args.pairs,
            recipe,
            args.out,
            test=args.test,
            test_fraction=args.test_fraction,
            only_if_better=args.promote_if_better,
            device=device,
            log_dir=args.log_dir,
        )
        tells, several = is_first(), count() > 1
    if not tells:  # nor fails: torchrun ends all others at once with one that does, and the first has yet to speak
        return 0
    text = str(report)
    if args.curve and report.history:
        training_curve(report.history, args.curve)
        text += f"\ntraining curve: {args.curve}"
    if report.written is None:
        return Outcome(report, text + ("\nexit code 4, of which torchrun makes 1" if several else ""), code=4)
    advice = "" if args.quiet or args.json else _advice(args, report.artifact.adapter, recipe.training.seed)
    return Outcome(report, text, advice)


def _advice(args: argparse.Namespace, adapter: Adapter, seed: int) -> str:
    """Return the time of a query, and the command that distils a student where that takes half of it or less.

    The command holds out the pairs that the training held out: on others the teacher would be ahead.
    """
    from dits_adapter.training.config import TrainingConfig
    from dits_adapter.training.distill import query_milliseconds, small_student

    student = small_student(adapter)
    if student is None:
        return ""
    now, then = query_milliseconds(adapter), query_milliseconds(student)
    if then > now / 2:
        return ""
    pairs, out, small = (shlex.quote(str(path)) for path in (args.pairs, args.out, f"{args.out}-small"))
    test = f" --test {shlex.quote(str(args.test))}" if args.test else f" --test-fraction {args.test_fraction:g}"
    same = "" if seed == TrainingConfig().seed else f" --set seed={seed}"
    return (
        f"This adapter takes {now:.1f} ms a query here. A student takes {then:.1f} ms, and is written only if its "
        f"R@1 is within noise:\n    dits-adapter distill {pairs} {out} --out {small} --steps {student.steps} "
        f"--depth {student.config.depth} --mlp-ratio {student.config.mlp_ratio:g}{test}{same}"
    )
