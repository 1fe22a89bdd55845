"""`dits-adapter compare`: every adapter on one split, a table and a recommendation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dits_adapter.cli._advice import commands_for
from dits_adapter.cli._early import check_paths
from dits_adapter.cli._options import add_device, add_pairs, seconds_of
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_compare"]


def add_compare(commands: Any) -> None:
    """Add `compare`."""
    compare = commands.add_parser(
        "compare",
        help="train every adapter on cached (text, video) vectors and recommend one",
        examples=(
            "cache --folds 5",
            "cache --out comparison --budget 30m --json",
        ),
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
        help="of training at most (default: 30, or as many as 3,000 steps hold, at least 3)",
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
    budget = None if args.budget is None else seconds_of("--budget", args.budget)
    check_paths(args.pairs, folder=args.out)
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.tasks.compare import compare_adapters
    from dits_adapter.training.config import Recipe

    comparison = compare_adapters(
        args.pairs,
        args.out,
        test_fraction=args.test_fraction,
        folds=args.folds,
        rows=args.rows,
        steps=args.steps,
        epochs=args.epochs,
        budget=budget,
        curve=args.curve,
        seed=args.seed,
        device=args.device,
        progress=not args.quiet,
    )
    recipe = Recipe.model_validate(comparison.recipes[comparison.recommendation.name])
    commands = commands_for(recipe, args.pairs, load_pairs(args.pairs).space)
    queries = "" if recipe.bank == "none" else ", with a file of other queries for QUERIES"
    advice = [f"\nTo have it{queries}:\n", *(f"    {each}" for each in commands)]
    figures = json.loads(comparison.to_json())
    return Outcome(figures, comparison.markdown(), "\n".join(advice) if commands else "")
