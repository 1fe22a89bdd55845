"""`dits-adapter compare`: every adapter on one split, a table and a recommendation."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._advice import commands_for
from dits_adapter.cli._options import add_device, add_pairs, seconds_of
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from dits_adapter.evaluation.comparison import Comparison

__all__ = ["add_compare"]

_EPOCHS, _LEAST_EPOCHS = 30, 3
_MOST_STEPS = 3_000
_PATIENCE = 8
"""Epochs without a better validation after which a training stops."""


def add_compare(commands: Any) -> None:
    """Add `compare`."""
    compare = commands.add_parser(
        "compare",
        help="train every adapter on cached (text, video) vectors and recommend one",
        description="Train every adapter on one part of the cached pairs, choose epochs and settings on a second, "
        "compare with plain CLIP on a third; print a table and a recommendation. Rows marked with * use other "
        "queries: a bank of the training texts.",
    )
    add_pairs(compare)
    compare.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep the adapters, comparison.json and comparison.md here; the same command reuses finished "
        "adapters",
    )
    compare.add_argument(
        "--test-fraction", type=float, default=0.2, metavar="F", help="of the videos (default: %(default)s)"
    )
    compare.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validate instead: each of K parts of the videos is searched once; for few pairs",
    )
    compare.add_argument(
        "--curve",
        type=Path,
        metavar="FILE.json",
        help="R@1 against the number of pairs, and whether more would help; FILE.png beside, with matplotlib",
    )
    compare.add_argument("--seed", type=int, default=24, help="of splits and training (default: %(default)s)")
    compare.add_argument(
        "--steps", type=int, nargs="+", default=[1, 5, 10], metavar="T'", help="of the DITS rows (default: 1 5 10)"
    )
    compare.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="rows of the table, or registered adapters that have none by default (default: all rows)",
    )
    compare.add_argument(
        "--epochs",
        type=int,
        help=f"of training at most (default: {_EPOCHS}, or as many as {_MOST_STEPS:,} steps hold, at least "
        f"{_LEAST_EPOCHS})",
    )
    compare.add_argument(
        "--budget",
        metavar="TIME",
        help="90s, 30m or 2h: compare the rows that fit, cheap ones first, and name the others; a training that "
        "takes twice what was expected is stopped after an epoch; --curve takes its time beyond (default: all "
        "rows; the time that they take is printed before they start)",
    )
    add_device(compare)
    compare.set_defaults(run=_compare, needs=("scipy", "sklearn", "yaml"))


def _compare(args: argparse.Namespace) -> Outcome:
    from dits_adapter._files import require_writable
    from dits_adapter._wording import validated
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.training._estimate import plan
    from dits_adapter.training._initial import LEARNING_RATES
    from dits_adapter.training._learning_curve import curve_rows, with_curve
    from dits_adapter.training.compare import compare, compare_folds, fitting_rows, fold_splits
    from dits_adapter.training.config import TrainingConfig
    from dits_adapter.training.rows import all_rows, selected_rows
    from dits_adapter.training.run import warn_if_few

    budget = None if args.budget is None else seconds_of("--budget", args.budget)
    if args.out is not None:
        require_writable(args.out)
    fields = {"seed": args.seed, "learning_rate": LEARNING_RATES, "patience": _PATIENCE}
    given = {} if args.epochs is None else {"epochs": args.epochs}
    training = validated(TrainingConfig, fields | given, at="--")
    everything = load_pairs(args.pairs)
    if not given:
        training = training.model_copy(update={"epochs": _epochs(len(everything) // training.batch_size)})
    named = selected_rows(args.rows, args.steps, training) if args.rows else all_rows(args.steps, training)
    rows = fitting_rows(named, everything.space)
    if args.folds is None:
        rest, test = everything.split(args.test_fraction, args.seed)
        splits = [(*rest.split(training.validation, args.seed), test)]
        warn_if_few(test, "with --folds 5 all videos are searched.")
    else:
        splits = fold_splits(everything, args.folds, training.validation, args.seed)
    if args.curve is not None:
        everything.space.require_shared()
        curve_rows(rows, splits)
        if not args.curve.absolute().parent.is_dir():
            raise InputError(f"--curve {args.curve}: there is no folder {args.curve.parent}; make it first.")
    planned = plan(rows, splits, budget=budget, out=args.out, device=args.device)
    if not args.quiet:
        print(planned, file=sys.stderr, flush=True)
    rows = planned.rows
    if args.curve is not None:
        curve_rows(rows, splits)  # of what the budget has left
    if args.folds is None:
        comparison = compare(*splits[0], rows=rows, out=args.out, limits=planned.limits, device=args.device)
    else:
        comparison = compare_folds(splits, rows=rows, out=args.out, limits=planned.limits, device=args.device)
    comparison = replace(comparison, left_out=planned.left_out)
    if args.curve is not None:
        comparison = with_curve(comparison, splits, rows=rows, seed=args.seed, device=args.device)
        _write_curve(comparison, args.curve)
    if args.out is not None:
        (args.out / "comparison.json").write_text(comparison.to_json() + "\n", "utf-8")
        (args.out / "comparison.md").write_text(comparison.markdown() + "\n", "utf-8")
    commands = commands_for(rows[comparison.recommendation.name], args.pairs, everything.space)
    advice = ["\nTo have it, with a file of other queries for QUERIES:\n", *(f"    {each}" for each in commands)]
    figures = json.loads(comparison.to_json())
    return Outcome(figures, comparison.markdown(), "\n".join(advice) if commands else "")


def _epochs(steps: int) -> int:
    """Return the epochs of so many steps where none are given: of many pairs fewer passes do."""
    return min(_EPOCHS, max(_LEAST_EPOCHS, _MOST_STEPS // max(1, steps)))


def _write_curve(comparison: Comparison, path: Path) -> None:
    """Write the learning curve as JSON, and as a picture beside it where matplotlib is installed."""
    from dataclasses import asdict

    from dits_adapter.evaluation._figures import learning_curve_plot

    assert comparison.curve is not None
    curve = {**asdict(comparison.curve), "more_would_help": comparison.curve.more_would_help}
    path.write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
    try:
        learning_curve_plot(comparison.curve, path.with_suffix(".png"), caption=comparison.space)
    except MissingExtraError as error:
        print(f"{path}: without a picture ({error})", file=sys.stderr)
