"""Speed of training DITS on vectors: `python -m benchmarks.training`.

In each round every form takes one training step on the same batch: forward, backward, clipping, AdamW and the
moving average of the weights. Forms: "faithful", the network as published, under autograd, and AdamW parameter by
parameter; "fast", what `dits-adapter train` runs, in float32 and in bfloat16; and the narrow network of one block
(MLP ratio 1), fast. Lower bounds: "products alone" are the matrix products of the folded flow, forward and
backward, with nothing between.

Times are of the processor's work (`time.process_time`), so that other processes on the machine disturb them less;
ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.generated import made_up_space
from benchmarks.training_profile import generated_pairs
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.adapters.base import cosines
from dits_adapter.cli import guarded
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import RetrievalMetrics, paired_bootstrap
from dits_adapter.training._loop import evaluate
from dits_adapter.training._losses import Objective, contrast, contrastive_loss
from dits_adapter.training._memory import keep_freed_memory
from dits_adapter.training._precision import settle_precision
from dits_adapter.training._state import TrainingState
from dits_adapter.training.config import Precision, Recipe
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

CAPTIONS = 4_100
"""Captions of the epoch that the table speaks of."""
CPU = torch.device("cpu")
FAITHFUL, PRODUCTS = "faithful, float32", "products alone, float32"

Step = Callable[[], object]


def faithful(adapter: Adapter, text: Tensor, video: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
    """Return the contrastive loss through the unfolded network, under autograd; an `Objective`."""
    assert isinstance(adapter, DITSAdapter)
    queries = adapter.sampler(text)
    with torch.autocast(text.device.type, enabled=False):
        return contrastive_loss(cosines(queries, video), logit_scale, labels)


def training_step(
    recipe: Recipe, width: int, precision: Precision, objective: Objective = contrast, *, fused: bool = True
) -> Step:
    """Return a step of training on one batch of generated pairs."""
    batch = recipe.training.batch_size
    training = recipe.training.model_copy(update={"precision": precision, "epochs": 1_000})
    torch.manual_seed(0)
    adapter = recipe.build_adapter(width)
    training = settle_precision(training, adapter, CPU)
    run = TrainingState(adapter, generated_pairs(batch, width, 0), training, 5e-4, objective, CPU)
    if not fused:
        for group in run.optimizer.param_groups:
            group["fused"] = False
    numbers = iter(range(1, 1_000))
    return lambda: run.epoch(next(numbers))


def products(recipe: Recipe, width: int, dtype: torch.dtype) -> Step:
    """Return the products of a step: each matrix of the folded flow with its inputs, and both gradients of it.

    These are the matrices of the blocks in all steps, those between two steps, one before the first, one after the
    last, and an affine start.
    """
    config, batch = recipe.sampler_config(width), recipe.training.batch_size
    hidden = int(width * config.mlp_ratio)
    square = (width, width)
    block = [square, (hidden, width), (width, hidden)]
    outside, between, inside = (
        [torch.randn(shape).to(dtype) for shape in shapes]
        for shapes in ([square] * (2 + (config.start == "affine")), [square], block * config.depth)
    )
    matrices = [*outside, *between * (config.steps - 1), *inside * config.steps]
    inputs = {size: torch.randn(batch, size).to(dtype) for size in {width, hidden}}

    def step() -> None:
        for matrix in matrices:
            output = inputs[matrix.shape[1]] @ matrix.T
            output @ matrix
            output.T @ inputs[matrix.shape[1]]

    return step


def forms(steps: int, width: int, batch: int) -> dict[str, Step]:
    """Return all forms of a training step by name."""
    settings = {"sampler.steps": str(steps), "training.batch_size": str(batch)}
    recipe = Recipe.read("best", settings={**settings, "sampler.depth": "4", "sampler.mlp_ratio": "4.0"})
    narrow = Recipe.read("best", settings={**settings, "sampler.depth": "1", "sampler.mlp_ratio": "1.0"})
    return {
        FAITHFUL: training_step(recipe, width, "float32", faithful, fused=False),
        "faithful, bfloat16 by autocast": training_step(recipe, width, "bfloat16", faithful, fused=False),
        "fast, float32": training_step(recipe, width, "float32"),
        "fast, bfloat16": training_step(recipe, width, "bfloat16"),
        "fast, narrow, float32": training_step(narrow, width, "float32"),
        "fast, narrow, bfloat16": training_step(narrow, width, "bfloat16"),
        PRODUCTS: products(recipe, width, torch.float32),
        "products alone, bfloat16": products(recipe, width, torch.bfloat16),
    }


def measure(timed: dict[str, Step], rounds: int) -> np.ndarray:
    """Time each step once a round, after a round that warms up: seconds, (rounds, steps)."""
    taken = []
    for _ in progress_bar(range(rounds + 1), desc="measuring", unit="round"):
        row = []
        for step in timed.values():
            started = time.process_time()
            step()
            row.append(time.process_time() - started)
        taken.append(row)
    return np.array(taken[1:])


def curved_pairs(videos: int, width: int, seed: int) -> Pairs:
    """Make pairs whose texts are a curved function of their videos, with noise: no linear map undoes it."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    inner, outer = fixed.normal(size=(2, width, width)) / width**0.5
    video = rng.normal(size=(videos, width))
    text = np.tanh(2 * video @ inner) @ outer + 1.5 * rng.normal(size=video.shape) + 1
    space = made_up_space("generated", width)
    return Pairs(text.astype(np.float32), unit(video.astype(np.float32)), np.arange(videos), space)


def agreement(width: int, seeds: int) -> str:
    """Train in float32 and in bfloat16, and return the table of R@1 on held-out pairs, paired by query.

    The recipe is `best` with the network of the paper, but from the text, which finds nothing here: all that is
    found is learned.
    """
    splits = [curved_pairs(count, width, place) for place, count in enumerate((3_000, 500, 1_000))]
    pairs, validation, test = splits
    rows = []
    for seed in progress_bar(range(seeds), desc="training", unit="seed"):
        ranks = {}
        for precision in ("float32", "bfloat16"):
            training = {"epochs": "8", "learning_rate": "[1e-3]", "precision": precision, "seed": str(seed)}
            network = {"sampler.start": "text", "sampler.depth": "4", "sampler.mlp_ratio": "4.0"}
            fields = {**network, **{f"training.{name}": value for name, value in training.items()}}
            adapter, _ = fit(Recipe.read("large", settings=fields), pairs, validation, progress=False)
            ranks[precision] = evaluate(adapter, test)
        r1 = [f"{RetrievalMetrics.from_ranks(found).r1:.1f}" for found in ranks.values()]
        gain = paired_bootstrap(ranks["float32"], ranks["bfloat16"], test.labels)["r1"]
        rows.append([str(seed), *r1, f"{gain.difference:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"])
    return markdown_table(["seed", *ranks, "bfloat16 over float32"], rows)


def table(names: Sequence[str], taken: np.ndarray, batch: int) -> str:
    """Return the table of one measurement."""
    batches = CAPTIONS // batch
    over = {name: np.median(taken / taken[:, [names.index(name)]], axis=0) for name in (FAITHFUL, PRODUCTS)}
    seconds = np.median(taken, axis=0)
    rows = [
        [
            name,
            f"{1e3 * seconds[place]:.0f}",
            f"{batches * seconds[place]:.1f}",
            f"{1 / over[FAITHFUL][place]:.2f}",
            f"{over[PRODUCTS][place]:.2f}",
        ]
        for place, name in enumerate(names)
    ]
    head = ["", "ms a step", f"s an epoch of {CAPTIONS:,}", f"times faster than {FAITHFUL}", f"over {PRODUCTS}"]
    return markdown_table(head, rows)


@guarded("benchmarks.training")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write training.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 10], metavar="T'", help="numbers of steps (1 10)"
    )
    parser.add_argument("--width", type=int, default=512, help="dimension of the embeddings (%(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="pairs a step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="how often each is timed (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (%(default)s)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=0,
        metavar="N",
        help="instead: train this many times in float32 and in bfloat16, and compare R@1 on held-out pairs",
    )
    parser.add_argument("--out", type=Path, default=Path("results/training"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    if args.seeds:
        print(agreement(args.width, args.seeds))
        return 0
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    parts = ["# Training", ", ".join(f"{key} {value}" for key, value in environment().items())]
    for steps in args.steps:
        timed = forms(steps, args.width, args.batch)
        parts.append(f"## T' = {steps}, d = {args.width}, {args.batch} pairs a step, {args.threads} thread(s)")
        with keep_freed_memory():  # as training does
            parts.append(table(list(timed), measure(timed, args.rounds), args.batch))
    torch.set_num_threads(threads)
    args.out.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(parts)
    (args.out / "training.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
