"""`dits-adapter evaluate`: metrics of a similarity matrix."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from dits_adapter._user_files import entries, map_array
from dits_adapter.cli._entry import show
from dits_adapter.errors import InputError

__all__ = ["add_evaluate"]


def add_evaluate(commands: Any) -> None:
    """Add `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="recall and ranks of a similarity matrix",
        description="Metrics of a similarity matrix in both directions, with 95 %% bootstrap intervals.",
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
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from dits_adapter.evaluation.metrics import METRICS, RetrievalMetrics, bootstrap, ranks, video_to_text_ranks

    scores = map_array(args.similarity)
    labels = None if args.labels is None else _load_labels(args.labels)
    try:
        forward = ranks(scores, labels, ties=args.ties)
        backward = video_to_text_ranks(scores, labels, ties=args.ties)
    except InputError as error:
        raise InputError(f"{args.similarity}: {error}") from None
    result: dict[str, Any] = {"similarity": str(args.similarity), "ties": args.ties}
    # Captions of one video are drawn together; from video to text every query is a video of its own.
    for direction, values, groups in (("text_to_video", forward, labels), ("video_to_text", backward, None)):
        metrics, intervals = RetrievalMetrics.from_ranks(values), bootstrap(values, groups)
        result[direction] = {"n": metrics.n} | {
            name: {"value": getattr(metrics, name), **intervals[name]._asdict()} for name in METRICS
        }
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    show(f"{args.similarity}: {args.ties} ties, 95 % bootstrap intervals")
    for direction in ("text_to_video", "video_to_text"):
        show(f"\n{direction.replace('_', ' ')}, {result[direction]['n']} queries")
        for name, title, digits in (
            ("r1", "R@1", 1),
            ("r5", "R@5", 1),
            ("r10", "R@10", 1),
            ("mdr", "MdR", 1),
            ("mnr", "MnR", 2),
            ("mrr", "MRR", 3),
        ):
            value, low, high = result[direction][name].values()
            show(f"  {title:<4} {value:>8.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    return 0


def _load_labels(path: Path) -> np.ndarray[Any, Any]:
    """Read labels from an .npy file, or from text with one integer a line."""
    if path.suffix == ".npy":
        return map_array(path)
    labels = []
    for number, line in entries(path):
        try:
            labels.append(int(line))
        except ValueError:
            raise InputError(f"{path}, line {number}: {line!r} is no whole number") from None
    return np.array(labels, dtype=np.int64)
