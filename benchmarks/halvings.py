"""Ranking gains on pairs of your own, without videos left over for a split: `python -m benchmarks.halvings`.

`--vectors` is a .npy file (2, n, d), pictures or videos first and the text of each second, or a cache of
`dits-adapter embed` or `dits-adapter import`, whose videos may have several texts.

Half of the videos, drawn at random, are the collection, and their texts the queries. The other half is all that
an adapter may learn from: its texts are the queries of a bank, its pairs what is fitted. This is done ten times.
Each row is compared with plain CLIP on the same queries; ± is the standard error of the mean difference over the
halvings, which share videos: the truth may be further off by somewhat more than it says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.generated import made_up_space
from dits_adapter import DotProducts, Pairs, QueryBankAdapter, fit_query_bank, load_pairs, mean_shift, ranks
from dits_adapter._user_files import map_array
from dits_adapter.adapters import Adapter, GentleFit, gentle_linear
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.vectors import unit

HALVINGS = 10
PLAIN = "plain CLIP"

Fit = Callable[[Pairs], Adapter]


@lru_cache(maxsize=1)  # two rows take the same fit
def gentle(other: Pairs) -> GentleFit:
    """Fit the affine map for few pairs."""
    return gentle_linear(other.text, other.video[other.labels])


def banked(fit: GentleFit) -> Adapter:
    """Put a bank of the texts that a map was fitted to behind it, each text adapted out of its fold."""
    bank = fit_query_bank(fit.out_of_fold)
    return QueryBankAdapter(bank.config, bank.bank, fit.adapter)


ROWS: Mapping[str, tuple[str, Fit]] = {
    "mean shift": ("pairs", lambda other: mean_shift(other.text, other.video[other.labels])),
    "query bank": ("queries", lambda other: fit_query_bank(other.text)),
    "gentle-linear": ("pairs", lambda other: gentle(other).adapter),
    "gentle-linear, then a bank": ("pairs", lambda other: banked(gentle(other))),
}
"""Adapters by name: what each is made of, and how, from the half that is not searched."""


@dataclass(frozen=True)
class Figures:
    """Figures of one halving, in percent.

    Attributes:
        r1: queries whose video is the first hit.
        r5: among the first five.
        r10: among the first ten.
    """

    r1: float
    r5: float
    r10: float

    @classmethod
    def of(cls, queries: NDArray[np.float32], half: Pairs) -> Figures:
        """Rank the videos of a half for its queries, unit vectors (n, d)."""
        place = ranks(DotProducts(queries, half.video), half.labels)
        return cls(*(100 * float(np.mean(place <= hits)) for hits in (1, 5, 10)))


@guarded("benchmarks.halvings")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.halvings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", type=Path, required=True, metavar="PATH", help="FILE.npy or a cache")
    parser.add_argument(
        "--halvings", type=int, default=HALVINGS, metavar="N", help="at least 2 (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.halvings < 2:
        raise InputError(f"--halvings {args.halvings}: a standard error needs at least 2.")
    print(report(read(args.vectors), args.halvings))
    return 0


def read(path: Path) -> Pairs:
    """Read a .npy file (2, n, d), videos first, or a cache.

    Raises:
        DITSError: it is something else, or damaged.
    """
    if path.suffix != ".npy":
        return load_pairs(path)
    vectors = map_array(path)
    if vectors.ndim != 3 or len(vectors) != 2:
        raise InputError(f"{path}: has shape {vectors.shape}; expected (2, n, d), videos first.")
    videos, texts = vectors.astype(np.float32)
    return Pairs(texts, unit(videos), np.arange(len(texts)), made_up_space(path.stem, texts.shape[1]))


def halves(pairs: Pairs, number: int) -> tuple[Pairs, Pairs]:
    """Part the videos at random with their texts: those that are searched, and the others."""
    order = np.random.default_rng(number).permutation(len(pairs.video))
    middle = len(order) // 2
    return pairs.of_videos(order[:middle]), pairs.of_videos(order[middle:])


def report(pairs: Pairs, halvings: int) -> str:
    """Return the table of all rows as Markdown, with what was measured above it."""
    plain: list[Figures] = []
    rows: dict[str, list[Figures]] = {name: [] for name in ROWS}
    for number in range(halvings):
        searched, other = halves(pairs, number)
        plain.append(Figures.of(unit(searched.text), searched))
        for name, (_, fit) in ROWS.items():
            rows[name].append(Figures.of(unit(fit(other).for_inference().adapt(searched.text)), searched))
    before = np.array([astuple(figures) for figures in plain])
    lines = [[PLAIN, "nothing", *(f"{mean:.1f}" for mean in before.mean(0))]]
    for name, figures in rows.items():
        gains = np.array([astuple(halving) for halving in figures]) - before
        errors = gains.std(0, ddof=1) / np.sqrt(halvings)
        cells = [f"{mean:+.1f} ± {error:.1f}" for mean, error in zip(gains.mean(0), errors, strict=True)]
        lines.append([name, ROWS[name][0], *cells])
    searched, other = halves(pairs, 0)
    return (
        f"{pairs.space.encoder}: {len(searched):,} queries, {len(searched.video):,} videos searched; "
        f"{len(other):,} other queries; {halvings} halvings\n\n"
        + markdown_table(["", "made of other", "R@1", "R@5", "R@10"], lines)
    )


if __name__ == "__main__":
    sys.exit(main())
