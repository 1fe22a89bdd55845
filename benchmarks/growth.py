"""Growth of the rows of `dits-adapter compare` with the number of pairs: `python -m benchmarks.growth`.

Pairs of one text and one video are generated, written as a cache, and opened anew for each row, which is fitted
as `compare` fits it, but for one epoch at one learning rate. Times are of the processor, so that a busy machine
does not disturb them: with one thread they are those of an idle one. Memory is the highest resident size during
the fit, less what was resident before; it is left out where the system does not tell, that is, other than on
Linux. The width is narrow, so that a million pairs are quick to make: at another width times are others, and grow
alike. Rows that differ in the bank alone share a fit, and are one. Of each number of pairs the rows are measured
that fit `--budget`, cheap ones first.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated import made_up_space
from dits_adapter import load_pairs
from dits_adapter.cli import guarded
from dits_adapter.cli._options import seconds_of
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.training._estimate import plan
from dits_adapter.training._table import row_ranks
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.rows import all_rows, selected_rows
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

PAIRS = (1_000, 10_000, 100_000, 1_000_000)
WIDTH = 16
NOISE = 0.5
"""Size of what a text does not share with its video, over that of what it does."""
EVALUATION = "evaluation of a row"
SPLIT = "the split in each"
KIB = 1024


@guarded("benchmarks.growth")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--pairs",
        type=int,
        nargs="+",
        default=list(PAIRS),
        metavar="N",
        help="numbers of pairs (default: %(default)s)",
    )
    parser.add_argument("--width", type=int, default=WIDTH, metavar="D", help="default: %(default)s")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows of compare (default: all)")
    parser.add_argument(
        "--budget", default="10m", metavar="TIME", help="for each number of pairs (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if min(args.pairs) < 100:
        raise InputError(f"--pairs {min(args.pairs)}: it takes 100 pairs or more to hold some of them out.")
    rows, budget = recipes(args.rows), seconds_of("--budget", args.budget)
    cells: dict[str, list[str]] = {name: [] for name in (*rows, EVALUATION, SPLIT)}
    for count in args.pairs:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            generate(cache, count, args.width)
            kept = plan(rows, [(*split(cache), split(cache)[1])], budget=budget).rows
            actions: dict[str, Callable[[Path], object]] = {n: partial(fitted, r) for n, r in kept.items()}
            actions |= {EVALUATION: ranked, SPLIT: split}
            for name, row in cells.items():
                action = actions.get(name)
                row.append("–" if action is None else measured(action, cache))
                print(f"{count:,} pairs, {name}: {row[-1]}", file=sys.stderr, flush=True)
    facts = ", ".join(f"{key} {value}" for key, value in environment().items())
    print(f"{facts}, {torch.get_num_threads()} threads\n\nd = {args.width}, seconds of the processor / MB:\n")
    print(markdown_table(["pairs", *(f"{count:,}" for count in args.pairs)], [[n, *c] for n, c in cells.items()]))
    return 0


def recipes(names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipes of the rows, with one epoch at one learning rate; by default one of each fit."""
    training = TrainingConfig()
    if names:
        rows = selected_rows(names, training=training)
    else:
        rows = {name: recipe for name, recipe in all_rows(training=training).items() if alone(recipe)}
    once = {"epochs": 1, "learning_rate": training.learning_rate}
    return {
        name: recipe.model_copy(update={"training": recipe.training.model_copy(update=once)})
        for name, recipe in rows.items()
    }


def alone(recipe: Recipe) -> bool:
    """Tell whether a recipe has no bank, or is the bank itself."""
    return recipe.bank == "none" or (recipe.adapter == "identity" and recipe.bank == "queries")


def generate(folder: Path, count: int, width: int) -> None:
    """Write a cache of pairs, shard by shard."""
    space = made_up_space("generated", width)
    mixing = np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    ids = len(str(count))
    writer = CacheWriter(folder, space=space, source="0" * 64, texts=count, videos=count, frames=0, id_bytes=ids)
    with writer:
        for span in writer.index.videos.spans():
            random = np.random.default_rng([1, span.start])
            shared = random.normal(size=(len(span), width))
            text = shared + NOISE * random.normal(size=shared.shape)
            writer.write_texts(span, text, np.arange(span.start, span.stop))
            names = [f"{number:0{ids}}" for number in span]
            writer.write_videos(span, list(span), names, unit(shared @ mixing), None)


def split(cache: Path) -> tuple[Pairs, Pairs]:
    """Open the pairs to learn from and those to choose by."""
    return load_pairs(cache).split(0.1, seed=0)


def fitted(recipe: Recipe, cache: Path) -> None:
    """Fit a row to the pairs of a cache."""
    fit(recipe, *split(cache), progress=False)


def ranked(cache: Path) -> None:
    """Search the held-out videos with their texts."""
    validation = split(cache)[1]
    plain = Recipe(adapter="identity")
    row_ranks(plain, fit(plain, validation, validation)[0], validation)


def measured(action: Callable[[Path], object], cache: Path) -> str:
    """Return the processor's seconds of an action and the megabytes that it takes at most, as `seconds / MB`."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)  # memory that was freed would be used again unseen
    before = resident(reset=True)
    start = time.process_time()
    action(cache)
    seconds = time.process_time() - start
    after = resident()
    return f"{seconds:.2g}" + ("" if before is None or after is None else f" / {(after - before) / KIB:.0f}")


def resident(reset: bool = False) -> int | None:
    """Return the highest resident size in KiB since the last reset; None where the system does not tell."""
    status, peak = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not peak.exists():
        return None
    if reset:
        peak.write_text("5")
    line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
