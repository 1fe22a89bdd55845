"""How long a query takes: text encoding and each adapter, apart: `python -m benchmarks.latency`.

Times do not depend on what the weights are, so all are random: a text tower of the size of CLIP ViT-B/32's (12
layers of the width of the embeddings, 49,408 tokens) and every adapter of `dits-adapter compare`, DITS both with
the network that is trained and with its folded form, which inference runs. In each round every one of them is
timed once, so that whatever slows the machine down slows all alike; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import TypeAdapter

from dits_adapter.adapters import (
    Adapter,
    AffineAdapter,
    AffineConfig,
    DITSAdapter,
    LowRankAdapter,
    LowRankConfig,
    MLPAdapter,
    MLPConfig,
)
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.compare import environment, equal_cost_depth, markdown_table, schedule
from dits_adapter.training.config import Recipe

TOKENS = 20
"""Length of a query of a dozen words, with start and end. CLIP reads at most 77."""
REFERENCE = f"text encoder, {TOKENS} tokens"
STEPS = (1, 5, 10)
ROUNDS = 3
"""Rounds at least, whatever time they take."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """One thing timed in one setting.

    Attributes:
        name: of the thing.
        batch: queries a call.
        threads: of the CPU.
        median, low, high: milliseconds a call: the median and the quartiles over the rounds.
        ratio: median over the rounds of its time over that of `REFERENCE`.
        rounds: how many.
    """

    name: str
    batch: int
    threads: int
    median: float
    low: float
    high: float
    ratio: float
    rounds: int


@dataclass(frozen=True)
class Latency:
    """One run of this benchmark.

    Attributes:
        width: dimension of the embeddings.
        timings: by setting, then in the order of the table.
        environment: processor and versions.
        version: of this layout.
    """

    width: int
    timings: tuple[Timing, ...]
    environment: dict[str, str]
    version: Literal[1] = 1

    def markdown(self) -> str:
        """Write one table a setting."""
        parts = ["# Latency", ", ".join(f"{key} {value}" for key, value in self.environment.items())]
        for threads, batch in dict.fromkeys((timing.threads, timing.batch) for timing in self.timings):
            rows = [t for t in self.timings if (t.threads, t.batch) == (threads, batch)]
            plural = "s" if threads > 1 else ""
            parts.append(f"## Batch {batch}, {threads} thread{plural}, d = {self.width}, {rows[0].rounds} rounds")
            head = ["", "ms a call", "quartiles", "ms a query", f"over {REFERENCE}"]
            cells = [
                [
                    t.name,
                    f"{t.median:.3f}",
                    f"{t.low:.3f} – {t.high:.3f}",
                    f"{t.median / t.batch:.4f}",
                    f"{t.ratio:.4f}",
                ]
                for t in rows
            ]
            parts.append(markdown_table(head, cells))
        return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write latency.json and latency.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256], help="queries a call (1 32 256)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the CPU (1 2)")
    parser.add_argument("--width", type=int, default=512, help="dimension of the embeddings (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of measuring for each setting (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/latency"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    adapters, encode = build_adapters(args.width), build_text_encoder(args.width)
    timings: list[Timing] = []
    for threads in args.threads:
        for batch in args.batch:
            timings += measure(adapters, encode, args.width, batch, threads, args.seconds)
    found = Latency(args.width, tuple(timings), environment())
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "latency.json").write_bytes(TypeAdapter(Latency).dump_json(found, indent=1) + b"\n")
    (args.out / "latency.md").write_text(found.markdown() + "\n", encoding="utf-8")
    print(found.markdown())
    return 0


def build_adapters(width: int) -> dict[str, Adapter]:
    """Build every adapter of the comparison, and DITS also as it is trained ("unfolded")."""
    adapters: dict[str, Adapter] = {
        "affine map": AffineAdapter(AffineConfig(width=width, method="ridge")),
        "low-rank affine map": LowRankAdapter(LowRankConfig(width=width, rank=min(32, width))),
    }
    for steps in (STEPS[0], STEPS[-1]):
        depth = equal_cost_depth(sampler(width, steps))
        adapters[f"mlp-{steps}, {depth} layers"] = MLPAdapter(MLPConfig(width=width, depth=depth)).eval()
    for steps in STEPS:
        dits = DITSAdapter(sampler(width, steps)).eval()
        adapters[f"dits-{steps}, unfolded"] = dits
        adapters[f"dits-{steps}"] = dits.for_inference()
    return adapters


def sampler(width: int, steps: int) -> SamplerConfig:
    """Return the sampler of T' steps that the comparison trains."""
    return Recipe(sampler=schedule(steps)).sampler_config(width)


def build_text_encoder(width: int) -> Callable[[int, int], object]:
    """Build a text tower with random weights; call it with a batch size and a number of tokens."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
    )
    model = CLIPTextModelWithProjection(config).eval()

    @torch.inference_mode()
    def encode(batch: int, tokens: int) -> object:
        ids = torch.full((batch, tokens), 320)
        ids[:, -1] = config.eos_token_id
        return model(ids).text_embeds

    return encode


def measure(
    adapters: Mapping[str, Adapter],
    encode: Callable[[int, int], object],
    width: int,
    batch: int,
    threads: int,
    seconds: float,
) -> list[Timing]:
    """Time everything in one setting, round by round.

    Args:
        adapters: by name.
        encode: see `build_text_encoder`.
        width: dimension d.
        batch: queries a call.
        threads: of the CPU.
        seconds: how long to go on; at least `ROUNDS` rounds.
    """
    vectors = np.random.default_rng(0).normal(size=(batch, width)).astype(np.float32)
    calls: dict[str, Call] = {
        REFERENCE: lambda: encode(batch, TOKENS),
        "text encoder, 77 tokens": lambda: encode(batch, 77),
    }
    calls |= {name: lambda adapter=adapter: adapter.adapt(vectors) for name, adapter in adapters.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for call in calls.values():
            call()  # warms up
        rounds: list[list[float]] = []
        end = time.monotonic() + seconds
        while len(rounds) < ROUNDS or time.monotonic() < end:
            rounds.append([_milliseconds(call) for call in calls.values()])
    finally:
        torch.set_num_threads(before)
    taken = np.array(rounds)
    low, median, high = np.percentile(taken, [25, 50, 75], axis=0)
    ratios = np.median(taken / taken[:, :1], axis=0)
    return [
        Timing(name, batch, threads, float(median[i]), float(low[i]), float(high[i]), float(ratios[i]), len(taken))
        for i, name in enumerate(calls)
    ]


def _milliseconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
