"""Adapters against each other at several numbers of pairs: `python -m benchmarks.few_pairs --vectors PATH`.

`--vectors` as for `benchmarks.halvings`. For each seed and number of videos, as many with their texts, drawn at
random, are all that is learnt from; the others are searched, at most half of all. The gentle adapters start at
the same map and have the same folds; mean shift and Procrustes have nothing to choose; `mlp-best`, and whatever
else `--rows` names of `dits-adapter compare`, chooses on a fifth of the videos. Each is compared with plain CLIP
and with the gentle linear map on the same queries. Brackets are 95 % intervals over the searched videos, all
seeds together and a video of several seeds once; each seed draws the pairs to learn from anew, and they overlap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.halvings import read
from dits_adapter import Pairs, fit_query_bank, ranks
from dits_adapter.adapters import Adapter, GentleFit, adapter_entry, gentle_dits, gentle_linear, gentle_mlp
from dits_adapter.adapters._folds import mean_and_error
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import DotProducts, Scores
from dits_adapter.evaluation.score_bias import BiasedScores, bias_sharpness, score_bias
from dits_adapter.training.rows import selected_rows
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

PLAIN, LINEAR = "plain", "gentle-linear"
BANKS = ("", " + query bank", " + score bias")
VALIDATION = 0.2

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Learnt:
    """Result of a row.

    Attributes:
        adapter: the adapter.
        bank: queries of its kind for a bank behind it, (n, d); None for a row without one.
        steps: number of steps that the folds chose; None where they chose none.
    """

    adapter: Adapter
    bank: Matrix | None = None
    steps: int | None = None


def gently(fit_to: Callable[..., GentleFit], other: Pairs) -> Learnt:
    """Fit a gentle adapter."""
    result = fit_to(other.text, other.video[other.labels])
    return Learnt(result.adapter, result.out_of_fold, result.steps)


def in_closed_form(name: str, other: Pairs) -> Learnt:
    """Fit an adapter that has one closed form."""
    entry = adapter_entry(name)
    assert entry.closed_form is not None
    return Learnt(entry.closed_form(other.matches)[0])


def trained(name: str, other: Pairs) -> Learnt:
    """Fit a row of `dits-adapter compare`."""
    adapter, _ = fit(selected_rows([name])[name], *other.split(VALIDATION, 0), progress=False)
    return Learnt(adapter.for_inference())


ROWS: Mapping[str, Callable[[Pairs], Learnt]] = {
    "mean-shift": partial(in_closed_form, "mean-shift"),
    "procrustes": partial(in_closed_form, "procrustes"),
    LINEAR: partial(gently, gentle_linear),
    "gentle-mlp": partial(gently, gentle_mlp),
    "gentle-dits, T' = 1": partial(gently, partial(gentle_dits, steps=1)),
    "gentle-dits, T' = 5": partial(gently, partial(gentle_dits, steps=5)),
    "gentle-dits, T' = 10": partial(gently, gentle_dits),
}
BLOCKS = {"gentle-dits, T' = 10, four blocks": partial(gently, partial(gentle_dits, depth=4))}


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
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rows", nargs="*", default=["low-rank-affine", "mlp-best"], metavar="NAME", help="of compare, too"
    )
    parser.add_argument("--blocks", action="store_true", help="T' = 10 with the paper's four blocks, too: minutes")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: needs at least 1.")
    selected_rows(args.rows)
    pairs = read(args.vectors)
    rows = {**ROWS, **{name: partial(trained, name) for name in args.rows}, **(BLOCKS if args.blocks else {})}
    for count in args.videos:
        print(report(pairs, count, args.seeds, rows) + "\n", flush=True)
    return 0


def parted(total: int, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw videos to learn from, and others to search.

    Raises:
        InputError: too few videos would be left to search.
    """
    if total - count < 10:
        raise InputError(f"--videos {count}: of {total} videos, at least 10 must be left to search.")
    order = np.random.default_rng(seed).permutation(total)
    return order[-count:], order[: min(total // 2, total - count)]


def places(queries: Matrix, bank: Matrix | None, searched: Pairs) -> dict[str, NDArray[np.floating]]:
    """Rank the searched videos for adapted queries: alone, and with either side of a bank; by `BANKS`."""
    cosines = DotProducts(queries, searched.video)
    scores: dict[str, Scores] = {BANKS[0]: cosines}
    if bank is not None:
        bias = score_bias(searched.video, bank, sharpness=bias_sharpness(searched.video, bank))
        scores[BANKS[1]] = DotProducts(fit_query_bank(bank).adapt(queries), searched.video)
        scores[BANKS[2]] = BiasedScores(cosines, bias)
    return {side: ranks(matrix, searched.labels) for side, matrix in scores.items()}


def report(pairs: Pairs, count: int, seeds: int, rows: Mapping[str, Callable[[Pairs], Learnt]]) -> str:
    """Return the table for a number of videos as Markdown, with what was measured above it."""
    measured: dict[str, list[NDArray[np.floating]]] = {}
    base: dict[str, str] = {}
    steps: dict[str, list[int]] = {}
    videos: list[NDArray[np.int64]] = []
    searched = pairs
    for seed in tqdm(range(seeds), desc=f"{count} videos", disable=None):
        learnt_from, ids = parted(len(pairs.video), count, seed)
        other, searched = pairs.of_videos(learnt_from), pairs.of_videos(ids)
        videos.append(ids[searched.labels])
        sides = {PLAIN: places(unit(searched.text), unit(other.text), searched)}
        for name, fit_to in rows.items():
            learnt = fit_to(other)
            if learnt.steps is not None:
                steps.setdefault(name, []).append(learnt.steps)
            sides[name] = places(learnt.adapter.adapt(searched.text), learnt.bank, searched)
        for name, by_side in sides.items():
            for side, place in by_side.items():
                measured.setdefault(name + side, []).append(place)
                base[name + side] = LINEAR + side
    table = {name: np.concatenate(places) for name, places in measured.items()}
    labels = np.concatenate(videos)
    lines = []
    for name, place in table.items():
        against = None if name.startswith((PLAIN, LINEAR)) else table[base[name]]
        chosen = steps.get(name)
        lines.append(
            [
                name,
                f"{100 * np.mean(place <= 1):.1f} / {100 * np.mean(place <= 5):.1f}",
                "–" if name == PLAIN else _gain(place, table[PLAIN], labels),
                "–" if against is None else _gain(place, against, labels),
                "–" if chosen is None else " ".join(map(str, chosen)),
            ]
        )
    head = ["", "R@1 / R@5", "R@1 over plain", "R@1 over gentle-linear alike", "steps"]
    return (
        f"{pairs.space.text.encoder}: {count:,} videos to learn from, {len(searched.video):,} searched by "
        f"{len(searched):,} queries; {seeds} seeds\n\n" + markdown_table(head, lines)
    )


def _gain(place: NDArray[np.floating], before: NDArray[np.floating], videos: NDArray[np.int64]) -> str:
    """Return the gain in R@1 in points, with its 95 % interval over the videos."""
    mean, error = mean_and_error(100.0 * (place <= 1) - 100.0 * (before <= 1), videos)
    return f"{mean:+.1f} [{mean - 1.96 * error:+.1f}, {mean + 1.96 * error:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())
