"""Ranking gains on pairs of your own, without videos left over for a split: `python -m benchmarks.halvings`.

`--vectors` is a .npy file (2, n, d), pictures or videos first and the text of each second, or a cache of
`dits-adapter embed` or `dits-adapter import`, whose videos may have several texts.

Half of the videos, drawn at random, are the collection, and their texts the queries. The other half is all that
an adapter may learn from: its texts are the queries of a bank, its pairs what is fitted. This is done ten times.
A bank uses other queries than those that search; none describes a searched video. Each row is compared with plain
CLIP on the same queries; ± is the standard error of the mean difference over the halvings, which share videos: the
truth may be further off by somewhat more than it says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.generated import made_up_space
from dits_adapter import DotProducts, Pairs, QueryBankAdapter, fit_query_bank, load_pairs, mean_shift, ranks
from dits_adapter._progress import progress_bar
from dits_adapter._user_files import map_array
from dits_adapter.adapters import Adapter, GentleFit, gentle_dits, gentle_linear, gentle_mlp
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import Scores
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, BiasedScores, bias_sharpness, score_bias
from dits_adapter.stores.bias import BESIDE_BANK
from dits_adapter.vectors import unit

HALVINGS = 10
PLAIN = "plain CLIP"

Score = Callable[[Pairs, Pairs], Scores]


@cache
def gentle(name: str, other: Pairs) -> GentleFit:
    """Fit a gentle adapter, once for all rows of a half."""
    return GENTLE[name](other.text, other.video[other.labels])


def behind(name: str, other: Pairs) -> QueryBankAdapter:
    """Put a bank of the texts that an adapter was fitted to behind it, each text adapted out of its fold."""
    fit = gentle(name, other)
    return fit_query_bank(other.text[fit.rows], inner=fit.adapter, adapted=fit.out_of_fold)


def cosines(adapter: Adapter, searched: Pairs) -> Scores:
    """Score the searched videos by an adapter."""
    return cosine_scores(adapter.for_inference(), searched.text, searched.video)


def biased(
    adapter: Adapter | None, bank: NDArray[np.float32], searched: Pairs, weight: float = BIAS_WEIGHT
) -> Scores:
    """Score the searched videos by an adapter (None for plain CLIP), less their bias of a bank."""
    scores = DotProducts(unit(searched.text), searched.video) if adapter is None else cosines(adapter, searched)
    bias = score_bias(searched.video, bank, sharpness=bias_sharpness(searched.video, bank))
    return BiasedScores(scores, bias, weight)


def on_both_sides(bank: QueryBankAdapter, searched: Pairs) -> Scores:
    """Score the searched videos by a query bank beside a score bias of the same queries."""
    return biased(bank.beside_bias(), bank.bank.numpy(), searched, BESIDE_BANK * BIAS_WEIGHT)


def gentle_rows(name: str) -> dict[str, tuple[str, Score]]:
    """Return the rows of a gentle adapter: alone, with either side of a bank, and with both."""
    return {
        name: ("pairs", lambda other, searched: cosines(gentle(name, other).adapter, searched)),
        f"{name}, then a query bank": ("pairs", lambda other, searched: cosines(behind(name, other), searched)),
        f"{name}, then a score bias": (
            "pairs",
            lambda other, searched: biased(gentle(name, other).adapter, gentle(name, other).out_of_fold, searched),
        ),
        f"{name}, then both": ("pairs", lambda other, searched: on_both_sides(behind(name, other), searched)),
    }


GENTLE: Mapping[str, Callable[..., GentleFit]] = {
    "gentle-linear": gentle_linear,
    "gentle-mlp": gentle_mlp,
    "gentle-dits-1": partial(gentle_dits, steps=1),
    "gentle-dits": gentle_dits,
}
"""Adapters for few pairs by name."""

ROWS: Mapping[str, tuple[str, Score]] = {
    "mean shift": ("pairs", lambda other, at: cosines(mean_shift(other.text, other.video[other.labels]), at)),
    "query bank": ("queries", lambda other, at: cosines(fit_query_bank(other.text), at)),
    "score bias": ("queries", lambda other, at: biased(None, unit(other.text), at)),
    "both": ("queries", lambda other, at: on_both_sides(fit_query_bank(other.text), at)),
    **gentle_rows("gentle-linear"),
    **gentle_rows("gentle-mlp"),
}
"""Rows by name: what each is made of, and the scores of the searched half by what the other half gives."""


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
    def of(cls, scores: Scores, half: Pairs) -> Figures:
        """Rank the videos of a half for its queries by their scores (n, m)."""
        place = ranks(scores, half.labels)
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
    parser.add_argument(
        "--dits",
        action="store_true",
        help="the gentle DITS of T' = 1 and 10 too",
    )
    args = parser.parse_args(argv)
    names = ("gentle-dits-1", "gentle-dits") if args.dits else ()
    rows = {**ROWS, **{row: score for name in names for row, score in gentle_rows(name).items()}}
    if args.halvings < 2:
        raise InputError(f"--halvings {args.halvings}: a standard error needs at least 2.")
    print(report(read(args.vectors), args.halvings, rows))
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


def report(pairs: Pairs, halvings: int, rows: Mapping[str, tuple[str, Score]] = ROWS) -> str:
    """Return the table of rows as Markdown, with what was measured above it."""
    plain: list[Figures] = []
    measured: dict[str, list[Figures]] = {name: [] for name in rows}
    for number in progress_bar(range(halvings), desc="halvings"):
        searched, other = halves(pairs, number)
        plain.append(Figures.of(DotProducts(unit(searched.text), searched.video), searched))
        for name, (_, score) in rows.items():
            measured[name].append(Figures.of(score(other, searched), searched))
        gentle.cache_clear()
    before = np.array([astuple(figures) for figures in plain])
    lines = [[PLAIN, "nothing", *(f"{mean:.1f}" for mean in before.mean(0))]]
    for name, figures in measured.items():
        gains = np.array([astuple(halving) for halving in figures]) - before
        errors = gains.std(0, ddof=1) / np.sqrt(halvings)
        cells = [f"{mean:+.1f} ± {error:.1f}" for mean, error in zip(gains.mean(0), errors, strict=True)]
        lines.append([name, rows[name][0], *cells])
    searched, other = halves(pairs, 0)
    return (
        f"{pairs.space.text.encoder}: {len(searched):,} queries, {len(searched.video):,} videos searched; "
        f"{len(other):,} other queries; {halvings} halvings\n\n"
        + markdown_table(["", "made of other", "R@1", "R@5", "R@10"], lines)
    )


if __name__ == "__main__":
    sys.exit(main())
