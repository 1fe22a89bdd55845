"""Adapters for few pairs against each other: `python -m benchmarks.few_pairs --vectors PATH`.

`--vectors` as for `benchmarks.halvings`. For each seed and number of videos, as many with their texts, drawn at
random, are all that is learnt from; the others are searched, at most half of all. Every adapter starts at the same
map and has the same folds. Each is compared with plain CLIP and with the gentle linear map on the same queries;
± is the standard error over the seeds, whose draws overlap, so that it says too little.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.halvings import read
from dits_adapter import Pairs, fit_query_bank, ranks
from dits_adapter.adapters import GentleFit, gentle_dits, gentle_linear, gentle_mlp
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import DotProducts, Scores
from dits_adapter.evaluation.score_bias import BiasedScores, bias_sharpness, score_bias
from dits_adapter.vectors import unit

LINEAR = "gentle-linear"

ADAPTERS: Mapping[str, Callable[..., GentleFit]] = {
    LINEAR: gentle_linear,
    "gentle-mlp": gentle_mlp,
    "gentle-dits, T' = 1": partial(gentle_dits, steps=1),
    "gentle-dits, T' = 5": partial(gentle_dits, steps=5),
    "gentle-dits, T' = 10": gentle_dits,
}
BLOCKS = {"gentle-dits, T' = 10, four blocks": partial(gentle_dits, depth=4)}

BANKS = ("", " + query bank", " + score bias")

Matrix = NDArray[np.float32]


@guarded("benchmarks.few_pairs")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", type=Path, required=True, metavar="PATH", help="FILE.npy or a cache")
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 250], metavar="N", help="to learn from")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="at least 2 (default: %(default)s)")
    parser.add_argument("--blocks", action="store_true", help="T' = 10 with the paper's four blocks, too: minutes")
    args = parser.parse_args(argv)
    if args.seeds < 2:
        raise InputError(f"--seeds {args.seeds}: a standard error needs at least 2.")
    pairs = read(args.vectors)
    for count in args.videos:
        print(report(pairs, count, args.seeds, {**ADAPTERS, **(BLOCKS if args.blocks else {})}) + "\n")
    return 0


def parted(pairs: Pairs, count: int, seed: int) -> tuple[Pairs, Pairs]:
    """Draw videos to learn from, and others to search.

    Raises:
        InputError: too few videos would be left to search.
    """
    total = len(pairs.video)
    if total - count < 10:
        raise InputError(f"--videos {count}: of {total} videos, at least 10 must be left to search.")
    order = np.random.default_rng(seed).permutation(total)
    return pairs.of_videos(order[-count:]), pairs.of_videos(order[: min(total // 2, total - count)])


def places(queries: Matrix, bank: Matrix, searched: Pairs) -> list[NDArray[np.floating]]:
    """Rank the searched videos for adapted queries: alone, and with either side of a bank; `BANKS`."""
    cosines = DotProducts(queries, searched.video)
    bias = score_bias(searched.video, bank, sharpness=bias_sharpness(searched.video, bank))
    scores: list[Scores] = [
        cosines,
        DotProducts(fit_query_bank(bank).adapt(queries), searched.video),
        BiasedScores(cosines, bias),
    ]
    return [ranks(matrix, searched.labels) for matrix in scores]


def report(pairs: Pairs, count: int, seeds: int, adapters: Mapping[str, Callable[..., GentleFit]]) -> str:
    """Return the table for a number of videos as Markdown, with what was measured above it."""
    found: dict[str, list[list[float]]] = {}
    steps: dict[str, list[int]] = {name: [] for name in adapters}
    searched = pairs
    for seed in tqdm(range(seeds), desc=f"{count} videos", disable=None):
        other, searched = parted(pairs, count, seed)
        rows = {"plain": places(unit(searched.text), unit(other.text), searched)}
        for name, fit_to in adapters.items():
            fit = fit_to(other.text, other.video[other.labels])
            steps[name].append(fit.steps)
            rows[name] = places(fit.adapter.adapt(searched.text), fit.out_of_fold, searched)
        for name, alternatives in rows.items():
            for bank, place in zip(BANKS, alternatives, strict=True):
                figures = [100 * float(np.mean(place <= hits)) for hits in (1, 5)]
                found.setdefault(name + bank, []).append([*figures, float(np.mean(1 / place))])
    table = {name: np.array(figures) for name, figures in found.items()}
    lines = []
    for name, figures in table.items():
        bank = next(bank for bank in reversed(BANKS) if name.endswith(bank))
        gains, ahead = figures - table["plain"], figures - table[LINEAR + bank]
        chosen = steps.get(name)
        lines.append(
            [
                name,
                f"{figures[:, 0].mean():.1f}",
                *(_mean(gains[:, column], digits) for column, digits in ((0, 1), (1, 1), (2, 3))),
                "–" if name.startswith(("plain", LINEAR)) else _mean(ahead[:, 0], 1),
                "–" if chosen is None else " ".join(map(str, chosen)),
            ]
        )
    head = ["", "R@1", "over plain", "R@5", "MRR", "R@1 over gentle-linear alike", "steps"]
    return (
        f"{pairs.space.text.encoder}: {count:,} videos to learn from, {len(searched.video):,} searched by "
        f"{len(searched):,} queries; {seeds} seeds\n\n" + markdown_table(head, lines)
    )


def _mean(values: NDArray[np.float64], digits: int) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
