"""`dits-adapter evaluate`: metrics of a similarity matrix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["add_evaluate"]


def add_evaluate(commands: Any) -> None:
    """Add `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="recall and ranks of a similarity matrix",
        examples=(
            "--similarity scores.npy",
            "--similarity scores.npy --labels labels.txt --ties mean --json",
        ),
        description="Metrics of a similarity matrix in both directions, with 95 % bootstrap intervals.",
    )
    evaluate.add_argument(
        "--similarity", type=Path, required=True, metavar="FILE.npy", help="rows texts, columns videos"
    )
    evaluate.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="column of each text's video, from 0: .npy, or text, one number a line (default: the diagonal)",
    )
    evaluate.add_argument(
        "--ties",
        choices=("pessimistic", "optimistic", "mean"),
        default="pessimistic",
        help="rank of the right candidate among wrong ones of exactly its score: last, first or in the middle "
        "(default: %(default)s)",
    )
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> Outcome:
    from dits_adapter._user_files import map_array
    from dits_adapter.evaluation.evaluate import evaluate_scores

    scores = map_array(args.similarity)
    labels = None if args.labels is None else _load_labels(args.labels)
    try:
        report = evaluate_scores(scores, labels, ties=args.ties)
    except InputError as error:
        raise InputError(f"{args.similarity}: {error}") from None
    return Outcome(report, f"{args.similarity}: {report}")


def _load_labels(path: Path) -> np.ndarray[Any, Any]:
    """Read labels from an .npy file, or from text with one integer a line."""
    import numpy as np

    from dits_adapter._user_files import entries, map_array

    if path.suffix == ".npy":
        return map_array(path)
    labels = []
    for number, line in entries(path):
        try:
            labels.append(int(line))
        except ValueError:
            raise InputError(f"{path}, line {number}: {line!r} is no whole number") from None
    return np.array(labels, dtype=np.int64)
