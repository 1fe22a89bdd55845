"""Adapters against each other at several numbers of pairs: `python -m benchmarks.few_pairs --vectors PATH`.

`--vectors` as for `benchmarks.halvings`. For each seed and number of videos, as many with their texts, drawn at
random, are all that is learnt from; the others are searched, at most half of all. The gentle adapters start at
the same map and have the same folds; mean shift and Procrustes have nothing to choose; the other rows are those
of `dits-adapter compare` and choose on a fifth of the videos. Each is compared with plain ranking, with a bank of
the same texts behind no adapter, and with the gentle linear map, on the same queries. Brackets are 95 % intervals
over the searched videos, all seeds together and a video of several seeds once; each seed draws the pairs to learn
from anew, and they overlap.

Each row of a seed is kept in `--out` once it is measured: a killed run goes on there. Clear that folder where the
code has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.halvings import read
from dits_adapter import Pairs, fit_query_bank, ranks
from dits_adapter._files import write_atomically
from dits_adapter._progress import progress_bar
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
OUT = Path("results/benchmarks/few-pairs")
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
    PLAIN: lambda other: replace(in_closed_form("identity", other), bank=unit(other.text)),
    "mean-shift": partial(in_closed_form, "mean-shift"),
    "procrustes": partial(in_closed_form, "procrustes"),
    LINEAR: partial(gently, gentle_linear),
    "gentle-mlp": partial(gently, gentle_mlp),
    "gentle-dits-1": partial(gently, partial(gentle_dits, steps=1)),
    "gentle-dits-5": partial(gently, partial(gentle_dits, steps=5)),
    "gentle-dits-10": partial(gently, gentle_dits),
    "gentle-dits-10-blocks": partial(gently, partial(gentle_dits, depth=4)),
}
"""Rows that have a fit of their own here, by name."""

USUAL = [*list(ROWS)[1:-1], "low-rank-affine", "contrastive-linear", "mlp-best"]
"""Rows that are measured beside plain ranking if none are named."""


@guarded("benchmarks.few_pairs")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", type=Path, required=True, metavar="PATH", help="FILE.npy or a cache")
    parser.add_argument(
        "--videos",
        type=int,
        nargs="+",
        default=[100, 250],
        metavar="N",
        help="numbers to learn from (default: 100 250)",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=USUAL,
        metavar="NAME",
        help=f"of {', '.join(list(ROWS)[1:])} (which has the paper's four), and rows of compare (default: all but "
        "that with blocks; of compare low-rank-affine, contrastive-linear and mlp-best)",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="for measured rows (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: needs at least 1.")
    selected_rows([name for name in args.rows if name not in ROWS])
    pairs = read(args.vectors)
    args.out.mkdir(parents=True, exist_ok=True)
    for count in args.videos:
        parted(len(pairs.video), count, 0)
    for count in args.videos:
        print(report(pairs, count, args.seeds, args.rows, args.out) + "\n", flush=True)
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


@dataclass(frozen=True)
class Measured:
    """Figures of a row with the pairs of one seed.

    Attributes:
        places: place of the right video for each query, by `BANKS`.
        steps: see `Learnt`.
    """

    places: dict[str, list[float]]
    steps: int | None

    @classmethod
    def of(cls, name: str, other: Pairs, searched: Pairs) -> Measured:
        """Learn a row from some pairs, and search with the texts of others."""
        learnt = ROWS.get(name, partial(trained, name))(other)
        by_side = places(learnt.adapter.adapt(searched.text), learnt.bank, searched)
        return cls({side: place.tolist() for side, place in by_side.items()}, learnt.steps)

    @classmethod
    def kept(cls, folder: Path, name: str, other: Pairs, searched: Pairs) -> Measured:
        """Return what a folder has of a row and its pairs; measure and keep what it has not."""
        digest = hashlib.sha256(name.encode())
        for pairs in (other, searched):
            for array in (pairs.text, pairs.video, pairs.labels):
                digest.update(np.ascontiguousarray(array))
        path = folder / f"{name}-{len(other.video)}-{digest.hexdigest()[:16]}.json"
        if path.exists():
            return cls(**json.loads(path.read_text("utf-8")))
        measured = cls.of(name, other, searched)
        with write_atomically(path) as part:
            part.write_text(json.dumps(asdict(measured)), "utf-8")
        return measured


def report(pairs: Pairs, count: int, seeds: int, names: Sequence[str], out: Path) -> str:
    """Return the table for a number of videos as Markdown, with what was measured above it."""
    rows: dict[str, list[Measured]] = {name: [] for name in [PLAIN, *names]}
    videos: list[NDArray[np.int64]] = []
    searched = pairs
    for seed in progress_bar(range(seeds), desc=f"{count} videos"):
        learnt_from, ids = parted(len(pairs.video), count, seed)
        other, searched = pairs.of_videos(learnt_from), pairs.of_videos(ids)
        videos.append(ids[searched.labels])
        for name, measured in rows.items():
            measured.append(Measured.kept(out, name, other, searched))
    labels = np.concatenate(videos)
    table = {
        (name, side): np.concatenate([seed.places[side] for seed in measured])
        for name, measured in rows.items()
        for side in measured[0].places
    }
    lines = []
    for (name, side), place in table.items():
        alone = table[PLAIN, side] if name != PLAIN and side else None
        against = None if name in (PLAIN, LINEAR) else table.get((LINEAR, side))
        chosen = [str(seed.steps) for seed in rows[name] if seed.steps is not None and not side]
        lines.append(
            [
                name + side,
                f"{100 * np.mean(place <= 1):.1f} / {100 * np.mean(place <= 5):.1f}",
                "–" if name + side == PLAIN else _gain(place, table[PLAIN, ""], labels),
                "–" if alone is None else _gain(place, alone, labels),
                "–" if against is None else _gain(place, against, labels),
                " ".join(chosen) or "–",
            ]
        )
    head = ["", "R@1 / R@5", "R@1 over plain", "R@1 over the bank alone", "R@1 over gentle-linear alike", "steps"]
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
