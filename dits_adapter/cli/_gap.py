"""`dits-adapter gap`: the modality gap before and after an adapter, in numbers and pictures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dits_adapter.cli._entry import show
from dits_adapter.cli._measured import add_measured, open_measured

__all__ = ["add_gap"]


def add_gap(commands: Any) -> None:
    """Add `gap`."""
    gap = commands.add_parser(
        "gap",
        help="measure and plot the modality gap before and after an adapter",
        description="Statistics of the gap between matching texts and videos, its histograms (the paper's Figs "
        "3 to 6), and the trajectories of some queries across it. Of the cache that the adapter was trained "
        "with, the pairs are taken that training held out.",
    )
    add_measured(gap)
    gap.add_argument(
        "--out", type=Path, default=Path("gap"), help="folder for the pictures (default: %(default)s)"
    )
    gap.add_argument(
        "--queries", type=int, default=12, metavar="N", help="trajectories to plot (default: %(default)s)"
    )
    gap.set_defaults(run=_gap, needs=("matplotlib", "sklearn"))


def _gap(args: argparse.Namespace) -> int:
    import torch

    from dits_adapter.evaluation._figures import gap_histograms, gap_picture, trajectories
    from dits_adapter.evaluation.gap import GapStatistics
    from dits_adapter.vectors import unit

    artifact, pairs = open_measured(args)
    artifact.space.require_shared()
    args.out.mkdir(parents=True, exist_ok=True)
    adapter = artifact.adapter.for_inference()
    text, video = unit(pairs.text), unit(pairs.video)[pairs.labels]
    adapted = unit(adapter.adapt(pairs.text))
    statistics = {"plain CLIP": GapStatistics.of(text, video), "adapted": GapStatistics.of(adapted, video)}
    show(f"{'':12}{'means apart':>12}{'L2':>8}{'L1':>8}{'cosine':>8}   ({len(pairs)} pairs)")
    for name, s in statistics.items():
        show(f"{name:12}{s.means_apart:12.3f}{s.l2:8.3f}{s.l1:8.2f}{s.cosine:8.3f}")
    gap_picture(text, adapted, video, args.out / "plane.png", caption=str(args.pairs))
    gap_histograms(text, adapted, video, args.out / "histograms.png")
    if adapter.has_trajectory:
        chosen = np.random.default_rng(0).choice(len(pairs), min(args.queries, len(pairs)), replace=False)
        with torch.inference_mode():
            queries = torch.from_numpy(pairs.text[np.sort(chosen)])
            path = [queries, *adapter.trajectory(queries)]  # the flow may start beyond the query
        trajectories(torch.stack(path).numpy(), text, unit(pairs.video), args.out / "trajectories.png")
    written = {name: asdict(s) for name, s in statistics.items()}
    (args.out / "statistics.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    show(f"pictures and figures in {args.out}")
    return 0
