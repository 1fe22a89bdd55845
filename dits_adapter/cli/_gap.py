"""`dits-adapter gap`: the modality gap before and after an adapter, in numbers and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._early import check_paths
from dits_adapter.cli._measured import add_measured
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_gap"]


def add_gap(commands: Any) -> None:
    """Add `gap`."""
    gap = commands.add_parser(
        "gap",
        help="measure and plot the modality gap before and after an adapter",
        examples=("cache my-adapter --out gap",),
        description="Statistics of the gap between matching texts and videos, its distribution at each step (the "
        "paper's Eq. 9), its histograms (Figs 3 to 6), and the trajectories of some queries across it. Of the "
        "cache that the adapter was trained with, the pairs are taken that training held out.",
    )
    add_measured(gap)
    gap.add_argument(
        "--against",
        nargs=2,
        metavar=("CACHE", "ADAPTER"),
        help="a second adapter and the same pairs in its space, as of a CLIP that was trained along (Table 9)",
    )
    gap.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="SCALE",
        help="measure DITS with the noise of Eq. 8 as well, which serving leaves out; 1 is the paper's",
    )
    gap.add_argument(
        "--out", type=Path, default=Path("gap"), help="folder for the pictures (default: %(default)s)"
    )
    gap.add_argument(
        "--queries", type=int, default=12, metavar="N", help="trajectories to plot (default: %(default)s)"
    )
    gap.set_defaults(run=_gap, needs=("matplotlib", "sklearn"))


def _gap(args: argparse.Namespace) -> Outcome:
    check_paths(args.pairs, adapter=args.adapter, folder=args.out)
    against = None
    if args.against:
        pairs, adapter = args.against
        check_paths(Path(pairs), adapter=adapter)
        against = adapter, pairs
    from dits_adapter.tasks.gap import measure_gap

    report = measure_gap(
        args.adapter,
        args.pairs,
        args.out,
        against=against,
        noise=args.noise,
        queries=args.queries,
        most_videos=args.videos,
    )
    return Outcome(report)
