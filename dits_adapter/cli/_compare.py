"""`dits-adapter compare`: every adapter on one split, a table and a recommendation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import show
from dits_adapter.cli._options import add_device, add_pairs

__all__ = ["add_compare"]


def add_compare(commands: Any) -> None:
    """Add `compare`."""
    compare = commands.add_parser(
        "compare",
        help="train every adapter on cached (text, video) vectors and recommend one",
        description="Train every adapter on one part of the cached pairs, choose epochs and settings on a second, "
        "compare with plain CLIP on a third; print a table and a recommendation.",
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
    compare.add_argument("--epochs", type=int, default=30, help="of training at most (default: %(default)s)")
    add_device(compare)
    compare.set_defaults(run=_compare, needs=("scipy", "sklearn", "yaml"))


def _compare(args: argparse.Namespace) -> int:
    from dits_adapter._wording import validated
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.training._initial import LEARNING_RATES
    from dits_adapter.training.compare import compare
    from dits_adapter.training.config import TrainingConfig
    from dits_adapter.training.rows import selected_rows, standard_rows

    given = {"seed": args.seed, "epochs": args.epochs}
    training = validated(TrainingConfig, {**given, "learning_rate": LEARNING_RATES}, at="--")
    rows = selected_rows(args.rows, args.steps, training) if args.rows else standard_rows(args.steps, training)
    rest, test = load_pairs(args.pairs).split(args.test_fraction, args.seed)
    pairs, validation = rest.split(training.validation, args.seed)
    comparison = compare(pairs, validation, test, rows=rows, out=args.out, device=args.device)
    if args.out is not None:
        (args.out / "comparison.json").write_text(comparison.to_json() + "\n", "utf-8")
        (args.out / "comparison.md").write_text(comparison.markdown() + "\n", "utf-8")
    show(comparison.markdown())
    return 0
