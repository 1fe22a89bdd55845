"""`dits-adapter gap`: the modality gap before and after an adapter, in numbers and pictures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dits_adapter.cli._entry import show
from dits_adapter.cli._measured import add_measured, open_measured
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.adapters import Adapter
    from dits_adapter.data.pairs import Pairs

__all__ = ["add_gap"]


def add_gap(commands: Any) -> None:
    """Add `gap`."""
    gap = commands.add_parser(
        "gap",
        help="measure and plot the modality gap before and after an adapter",
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


def _gap(args: argparse.Namespace) -> int:
    from dits_adapter.adapters import DITSAdapter
    from dits_adapter.evaluation._figures import gap_comparison, gap_histograms, gap_picture
    from dits_adapter.evaluation.gap import GapStatistics, gap_steps, with_noise
    from dits_adapter.vectors import unit

    adapter, pairs = _opened(args)
    other = None
    if args.against:
        second = {"pairs": Path(args.against[0]), "adapter": args.against[1]}
        other, other_pairs = _opened(argparse.Namespace(**{**vars(args), **second}))
        pairs, other_pairs = _common(pairs, other_pairs)
    if not 0 <= args.noise < np.inf or (args.noise and not isinstance(adapter, DITSAdapter)):
        raise InputError(f"--noise {args.noise:g}: expected a factor of at least 0, and an adapter of kind dits.")
    args.out.mkdir(parents=True, exist_ok=True)
    ready = adapter.for_inference()
    text, video = unit(pairs.text), unit(pairs.video)[pairs.labels]
    adapted = unit(ready.adapt(pairs.text))
    statistics = {"plain CLIP": GapStatistics.of(text, video), "adapted": GapStatistics.of(adapted, video)}
    if args.noise and isinstance(adapter, DITSAdapter):
        statistics["noise on"] = GapStatistics.of(with_noise(adapter, pairs.text, args.noise), video)
    if other is not None:
        names = _names(args.adapter, args.against[1])
        adapted_other = unit(other.for_inference().adapt(other_pairs.text))
        video_other = unit(other_pairs.video)[other_pairs.labels]
        statistics["plain CLIP, against"] = GapStatistics.of(unit(other_pairs.text), video_other)
        statistics["adapted, against"] = GapStatistics.of(adapted_other, video_other)
        picture = args.out / "comparison.png"
        gap_comparison((adapted, video), (adapted_other, video_other), names, picture)
    show(f"{'':20}{'means apart':>12}{'L2':>8}{'L1':>8}{'cosine':>8}   ({len(pairs)} pairs)")
    for name, s in statistics.items():
        show(f"{name:20}{s.means_apart:12.3f}{s.l2:8.3f}{s.l1:8.2f}{s.cosine:8.3f}")
    written: dict[str, Any] = {name: asdict(s) for name, s in statistics.items()}
    if isinstance(adapter, DITSAdapter) and ready.has_trajectory and adapter.steps:
        steps = gap_steps(adapter, pairs.text, video)
        show(f"\n{'step t':>8}{'bias, norm':>12}{'λ':>8}{'L2 left':>9}{'cosine':>8}")
        for step in steps:
            show(f"{step.t:8}{step.bias:12.3f}{step.scale:8.3f}{step.left.l2:9.3f}{step.left.cosine:8.3f}")
        written["steps"] = [asdict(step) for step in steps]
    gap_picture(text, adapted, video, args.out / "plane.png", caption=str(args.pairs))
    gap_histograms(text, adapted, video, args.out / "histograms.png")
    if ready.has_trajectory:
        _draw_trajectories(ready, pairs, args.queries, args.out / "trajectories.png")
    (args.out / "statistics.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    show(f"pictures and figures in {args.out}")
    return 0


def _opened(args: argparse.Namespace) -> tuple[Adapter, Pairs]:
    artifact, pairs = open_measured(args)
    artifact.space.require_shared()
    return artifact.adapter, pairs


def _common(first: Pairs, second: Pairs) -> tuple[Pairs, Pairs]:
    """Return the pairs of the videos that both have, which have to be the same pairs.

    Raises:
        InputError: they are pairs of other videos, or of other texts.
    """
    shared = set(first.video_ids) & set(second.video_ids)
    parts = [
        pairs.of_videos(np.array([row for row, name in enumerate(pairs.video_ids) if name in shared], np.int64))
        for pairs in (first, second)
    ]
    if not shared or list(parts[0].video_ids) != list(parts[1].video_ids):
        raise InputError(
            "--against: the two caches share no videos in one order; embed one PAIRS.jsonl with both."
        )
    if not np.array_equal(parts[0].labels, parts[1].labels):
        raise InputError(
            "--against: the videos of the two caches have other texts; embed one PAIRS.jsonl with both."
        )
    return parts[0], parts[1]


def _names(first: str, second: str) -> tuple[str, str]:
    """Return the last parts of two paths, or the whole paths where these are the same."""
    short = Path(first).name, Path(second).name
    return short if short[0] != short[1] else (first, second)


def _draw_trajectories(adapter: Adapter, pairs: Pairs, queries: int, path: Path) -> None:
    """Draw the paths of some queries, chosen at random."""
    import torch

    from dits_adapter.evaluation._figures import trajectories
    from dits_adapter.vectors import unit

    chosen = np.random.default_rng(0).choice(len(pairs), min(queries, len(pairs)), replace=False)
    with torch.inference_mode():
        texts = torch.from_numpy(pairs.text[np.sort(chosen)])
        points = [texts, *adapter.trajectory(texts)]  # the flow may start beyond the query
    trajectories(torch.stack(points).numpy(), unit(pairs.text), unit(pairs.video), path)
