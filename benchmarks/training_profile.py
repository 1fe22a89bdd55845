"""Profile of training on vectors: `python -m benchmarks.training_profile --device cuda`.

Trains DITS for an epoch on generated pairs and prints where the time goes, operation by operation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.generated import made_up_space
from dits_adapter._wording import validated
from dits_adapter.cli import guarded
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

OPERATIONS = 12
"""Rows of the profile."""


def generated_pairs(count: int, width: int, seed: int) -> Pairs:
    """Make pairs whose videos lie near their texts."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(count, width)).astype(np.float32)
    video = unit(text + rng.normal(size=text.shape))
    return Pairs(text, video, np.arange(count), made_up_space("generated", width))


def epoch(recipe: Recipe, pairs: Pairs, validation: Pairs, device: torch.device) -> float:
    """Train for the recipe's epochs; return seconds."""
    started = time.monotonic()
    fit(recipe, pairs, validation, device=device, progress=False)
    return time.monotonic() - started


@guarded("benchmarks.training_profile")
def main(argv: Sequence[str] | None = None) -> int:
    """Print time and profile of an epoch; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_profile", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=10_000, help="number of pairs (%(default)s)")
    parser.add_argument("--width", type=int, default=512, help="dimension of the embeddings (%(default)s)")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16 (%(default)s)")
    parser.add_argument("--device", default="auto", help="a torch device (%(default)s)")
    args = parser.parse_args(argv)
    device = pick_device(args.device)
    recipe = Recipe(training=validated(TrainingConfig, {"epochs": 1, "precision": args.precision}, at="--"))
    pairs, validation = (generated_pairs(n, args.width, seed) for seed, n in enumerate((args.pairs, 256)))
    epoch(recipe, validation, validation, device)  # kernels are chosen, memory is reserved
    seconds = epoch(recipe, pairs, validation, device)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    with profile(activities=activities) as recorded:
        epoch(recipe, validation, validation, device)
    print(f"one epoch of {len(pairs):,} pairs at d = {args.width}, T' = 10: {seconds:.2f} s\n")
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(recorded.key_averages().table(sort_by=order, row_limit=OPERATIONS, max_name_column_width=40))
    return 0


if __name__ == "__main__":
    sys.exit(main())
