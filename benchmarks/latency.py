"""Latency of a query, text encoding and each adapter apart: `python -m benchmarks.latency`.

Times do not depend on the weights, so all weights are random: a text tower of the size of CLIP ViT-B/32's (12
layers of the width of the embeddings, 49,408 tokens) and every adapter of `dits-adapter compare`; DITS with the
network that is trained ("unfolded"), as queries run it, in bfloat16, and as `dits-adapter export` writes it.
"dits-best" is what `dits-adapter train` writes by default, "dits-N" has the paper's network.

On a GPU (`--device cuda`) the exports are left out, which run on the CPU; in their place the folded form is
compiled by torch.compile, and recorded as a CUDA graph, whose kernels are launched together. Queries and results
are arrays in the CPU's memory all the same: the times include their transfer.

The last rows are lower bounds on the time of DITS: "reading" is the time to read its matrices
once for every step, "multiplying" that of one matrix product a step with as many multiplications.

In each round every row is timed once, so that a slow moment of the machine slows all alike; ratios are
taken within a round. `--growth` adds curves: DITS over batch sizes, threads, steps and widths.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import TypeAdapter

from dits_adapter._progress import progress_bar
from dits_adapter.adapters import (
    Adapter,
    AffineAdapter,
    AffineConfig,
    DITSAdapter,
    LowRankAdapter,
    LowRankConfig,
    MLPAdapter,
    MLPConfig,
    fit_query_bank,
)
from dits_adapter.backends._onnx_export import export_adapter, quantize
from dits_adapter.backends._onnx_runtime import open_session
from dits_adapter.cli import guarded
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import PRESETS, Recipe
from dits_adapter.training.rows import equal_cost_depth, schedule
from dits_adapter.vectors import check_directions, check_vectors

TOKENS = 20
"""Tokens of a query of a dozen words, start and end included. CLIP reads at most 77."""
CPU = torch.device("cpu")
REFERENCE = "text encoder, 77 tokens"
EAGER = "dits-10, unfolded"
"""Name of the straightforward implementation, over which speed-ups are measured."""
DEFAULT = "dits-best"
"""Name of the adapter that `dits-adapter train` writes by default."""
SAMPLERS = {
    **{f"dits-{steps}": schedule(steps) for steps in (1, 5, 10)},
    DEFAULT: PRESETS["best"].sampler,
}
"""Fields of samplers by name: the paper's network, and the adapter that `dits-adapter train` writes by default."""
BANK = 4096
"""Queries in the bank, as many as `dits-adapter bank` takes by default."""
GROWTH = {
    "batch": (1, 4, 16, 64, 256, 1024, 4096),
    "threads": tuple(n for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)),
    "steps": (1, 2, 5, 10, 20),
    "width": (128, 256, 512, 1024),
}
"""Axes of the growth curves; the others stay at batch 1, one thread, ten steps and the width of --width."""
GROWTH_SECONDS = 3.0
"""Seconds of measuring for each point of a curve."""
ROUNDS = 3
"""Least number of rounds."""

Call = Callable[[], object]


class Adapts(Protocol):
    """Function to time: vectors (n, d) to vectors (n, d)."""

    def adapt(self, vectors: np.ndarray) -> object:
        """Adapt vectors."""


class Exported:
    """Exported adapter, run as by the ONNX backend."""

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._width = path, width

    def use(self, threads: int) -> None:
        """Set the number of threads."""
        self._session = open_session(self._path, threads)

    def adapt(self, vectors: np.ndarray) -> object:
        """Adapt vectors."""
        check_vectors(vectors, self._width)
        check_directions(vectors)
        return self._session.run(None, {"vectors": vectors, "strength": np.ones(1, np.float32)})[0]


class Half:
    """Folded adapter in bfloat16; not in the package, because int8 is smaller, faster and nearly as close."""

    def __init__(self, adapter: Adapter, device: torch.device) -> None:
        self._adapter, self._device = copy.deepcopy(adapter).bfloat16(), device

    @torch.inference_mode()
    def adapt(self, vectors: np.ndarray) -> object:
        """Adapt vectors."""
        batch_input = torch.from_numpy(vectors).to(self._device, torch.bfloat16)
        return torch.nn.functional.normalize(self._adapter(batch_input).float(), dim=1).cpu()


class Compiled:
    """Folded adapter under torch.compile, compiled for each batch size; without CUDA graphs."""

    def __init__(self, adapter: Adapter, device: torch.device) -> None:
        self._run, self._device = torch.compile(_unit(adapter), dynamic=False), device

    @torch.inference_mode()
    def adapt(self, vectors: np.ndarray) -> object:
        """Adapt vectors."""
        return self._run(torch.from_numpy(vectors).to(self._device)).cpu()


class Graphed:
    """Folded adapter on a GPU as a CUDA graph, recorded at the first call of a batch size."""

    def __init__(self, adapter: Adapter, device: torch.device) -> None:
        self._run, self._device = _unit(adapter), device
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    @torch.inference_mode()
    def adapt(self, vectors: np.ndarray) -> object:
        """Adapt vectors."""
        if len(vectors) not in self._recorded:
            self._recorded[len(vectors)] = self._record(vectors)
        graph, batch_input, adapted = self._recorded[len(vectors)]
        batch_input.copy_(torch.from_numpy(vectors))
        graph.replay()
        return adapted.cpu()

    def _record(self, vectors: np.ndarray) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        batch_input = torch.from_numpy(vectors).to(self._device)
        aside = torch.cuda.Stream()  # what libraries set up in a first call must not be recorded
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._run(batch_input)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            adapted = self._run(batch_input)
        return graph, batch_input, adapted


def _unit(adapter: Adapter) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda vectors: torch.nn.functional.normalize(adapter(vectors), dim=1)


class Reading:
    """Lower bound by memory: reads the bytes of the folded sampler's matrices once a step."""

    def __init__(self, width: int, steps: int, bytes_each: int, device: torch.device = CPU) -> None:
        self._steps, self._weights = steps, torch.ones(37 * width * width * bytes_each // 4, device=device)

    @torch.inference_mode()
    def adapt(self, vectors: np.ndarray) -> object:
        """Read the matrices."""
        return torch.stack([self._weights.sum() for _ in range(self._steps)]).cpu()


class Multiplying:
    """Lower bound by arithmetic: the folded sampler's multiplications in one matrix product a step."""

    def __init__(self, width: int, steps: int, device: torch.device = CPU) -> None:
        self._steps, self._weights = steps, torch.ones(37 * width, width, device=device)

    @torch.inference_mode()
    def adapt(self, vectors: np.ndarray) -> object:
        """Multiply the matrices."""
        batch_input = torch.from_numpy(vectors).to(self._weights.device)
        return [torch.nn.functional.linear(batch_input, self._weights) for _ in range(self._steps)][-1][:, 0].cpu()


@dataclass(frozen=True)
class Timing:
    """Timing of one row in one setting.

    Attributes:
        name: name of the row.
        batch: queries a call.
        threads: threads of the CPU.
        median, low, high: milliseconds a call: the median and the quartiles over the rounds.
        ratio: median over the rounds of its time over that of `REFERENCE`.
        faster: median over the rounds of the time of `EAGER` over its own.
        rounds: number of rounds.
    """

    name: str
    batch: int
    threads: int
    median: float
    low: float
    high: float
    ratio: float
    faster: float
    rounds: int


@dataclass(frozen=True)
class Latency:
    """Result of one run of this benchmark.

    Attributes:
        width: dimension of the embeddings.
        timings: timings by setting, then in the order of the table.
        profile: share of the time of `dits-10` at batch 1 by operator, the largest first.
        environment: processor and versions.
        growth: for each axis, each value of it: milliseconds a call by form of DITS.
        version: version of this layout.
    """

    width: int
    timings: tuple[Timing, ...]
    profile: dict[str, float]
    environment: dict[str, str]
    growth: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    version: Literal[2] = 2

    def markdown(self) -> str:
        """Write one table a setting."""
        parts = ["# Latency", ", ".join(f"{key} {value}" for key, value in self.environment.items())]
        for threads, batch in dict.fromkeys((timing.threads, timing.batch) for timing in self.timings):
            rows = [t for t in self.timings if (t.threads, t.batch) == (threads, batch)]
            plural = "s" if threads > 1 else ""
            parts.append(f"## Batch {batch}, {threads} thread{plural}, d = {self.width}, {rows[0].rounds} rounds")
            head = ["", "ms a call", "quartiles", "ms a query", f"over {REFERENCE}", f"times faster than {EAGER}"]
            cells = [
                [
                    t.name,
                    f"{t.median:.3f}",
                    f"{t.low:.3f} – {t.high:.3f}",
                    f"{t.median / t.batch:.4f}",
                    f"{t.ratio:.4f}",
                    f"{t.faster:.1f}",
                ]
                for t in rows
            ]
            parts.append(markdown_table(head, cells))
            share = next(t.ratio for t in rows if t.name == DEFAULT)
            parts.append(
                f"The adapter that `dits-adapter train` writes by default takes {share:.1%} of {REFERENCE}."
            )
        parts.append("## Where dits-10 spends its time at batch 1 (torch)")
        shares = [[name, f"{100 * share:.0f} %"] for name, share in self.profile.items()]
        parts.append(markdown_table(["operator", "share"], shares))
        for axis, curve in self.growth.items():
            parts.append(f"## Growth with {axis}: ms a call")
            forms = list(next(iter(curve.values())))
            rows = [[str(value), *(f"{times[form]:.2f}" for form in forms)] for value, times in curve.items()]
            parts.append(markdown_table([axis, *forms], rows))
        return "\n\n".join(parts)


@guarded("benchmarks.latency")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write latency.json and latency.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256], help="queries a call (1 32 256)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of the CPU (1 2)")
    parser.add_argument("--device", type=torch.device, default=CPU, help="a torch device (%(default)s)")
    parser.add_argument("--width", type=int, default=512, help="dimension of the embeddings (%(default)s)")
    parser.add_argument("--growth", action="store_true", help="add growth curves; takes five minutes")
    parser.add_argument("--seconds", type=float, default=20, help="for each setting (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/latency"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        adapters = build_adapters(args.width, Path(folder), args.device)
        encode = build_text_encoder(args.width, args.device)
        timings: list[Timing] = []
        settings = [(threads, batch) for threads in args.threads for batch in args.batch]
        for threads, batch in progress_bar(settings, desc="measuring", unit="setting"):
            timings += measure(adapters, encode, args.width, batch, threads, args.seconds)
        grown = growth(args.width, Path(folder), args.device) if args.growth else {}
    shares = profile(args.width, args.device)
    surroundings = environment() | {"torch on": str(args.device)}
    latency = Latency(args.width, tuple(timings), shares, surroundings, grown)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "latency.json").write_bytes(TypeAdapter(Latency).dump_json(latency, indent=1) + b"\n")
    (args.out / "latency.md").write_text(latency.markdown() + "\n", encoding="utf-8")
    print(latency.markdown())
    return 0


def build_adapters(width: int, folder: Path, device: torch.device = CPU) -> dict[str, Adapts]:
    """Build every adapter of the comparison, DITS in each form, and the lower bounds; exports go into `folder`."""
    adapters: dict[str, Adapts] = {
        "affine map": AffineAdapter(AffineConfig(width=width, method="ridge")).to(device),
        "low-rank affine map": LowRankAdapter(LowRankConfig(width=width, rank=min(32, width))).to(device),
        f"query bank of {BANK:,}": fit_query_bank(
            np.random.default_rng(0).normal(size=(BANK, width)), size=BANK
        ).to(device),
    }
    for steps in (1, 10):
        depth = equal_cost_depth(sampler(width, schedule(steps)))
        mlp = MLPAdapter(MLPConfig(width=width, depth=depth)).eval()
        adapters[f"mlp-{steps}, {depth} layers"] = mlp.to(device)
    for name, fields in progress_bar(SAMPLERS.items(), desc="exporting", unit="sampler"):
        adapters |= forms(name, sampler(width, fields), folder, device)
    adapters["floor of dits-10: reading float32"] = Reading(width, 10, 4, device)
    adapters["floor of dits-10: reading int8"] = Reading(width, 10, 1, device)
    adapters["floor of dits-10: multiplying float32"] = Multiplying(width, 10, device)
    return adapters


def forms(name: str, config: SamplerConfig, folder: Path, device: torch.device = CPU) -> dict[str, Adapts]:
    """Build the forms of a sampler: unfolded, folded, bfloat16, and exported or, on a GPU, compiled and recorded.

    The files are made once for a name and a width; the weights are the same every time.
    """
    generator = torch.Generator().manual_seed(0)
    dits = DITSAdapter(config).eval()
    with torch.no_grad():
        for parameter in dits.parameters():
            parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5, generator=generator)
    folded = dits.for_inference().to(device)
    built: dict[str, Adapts] = {
        f"{name}, unfolded": dits.to(device),
        name: folded,
        f"{name}, bfloat16": Half(folded, device),
    }
    if device.type != "cpu":
        return built | {
            f"{name}, compiled": Compiled(folded, device),
            f"{name}, CUDA graph": Graphed(folded, device),
        }
    width = config.width
    float32, int8 = (folder / f"{name}-{width}-{kind}.onnx" for kind in ("float32", "int8"))
    if not int8.exists():
        export_adapter(dits, float32)
        quantize(float32, int8, np.random.default_rng(0).normal(size=(256, width)).astype(np.float32))
    return built | {f"{name}, onnx": Exported(float32, width), f"{name}, onnx int8": Exported(int8, width)}


def sampler(width: int, fields: Mapping[str, Any]) -> SamplerConfig:
    """Return the sampler that the comparison trains, with some fields of its own."""
    return Recipe(sampler=dict(fields)).sampler_config(width)


def build_text_encoder(width: int, device: torch.device = CPU) -> Callable[[int, int], torch.Tensor]:
    """Build a text tower with random weights; call it with a batch size and a number of tokens."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
    )
    model = CLIPTextModelWithProjection(config).eval().to(device)

    @torch.inference_mode()
    def encode(batch: int, tokens: int) -> torch.Tensor:
        ids = torch.full((batch, tokens), 320)
        ids[:, -1] = config.eos_token_id
        embeddings: torch.Tensor = model(ids.to(device)).text_embeds
        return embeddings.cpu()

    return encode


def measure(
    adapters: Mapping[str, Adapts],
    encode: Callable[[int, int], object],
    width: int,
    batch: int,
    threads: int,
    seconds: float,
) -> list[Timing]:
    """Time everything in one setting, round by round.

    Args:
        adapters: functions to time by name.
        encode: see `build_text_encoder`.
        width: dimension d.
        batch: queries a call.
        threads: threads of the CPU.
        seconds: duration; at least `ROUNDS` rounds run.
    """
    towers: dict[str, Call] = {
        f"text encoder, {TOKENS} tokens": lambda: encode(batch, TOKENS),
        REFERENCE: lambda: encode(batch, 77),
    }
    names = [*towers, *adapters]
    taken = rounds(calls(adapters, width, batch, threads, towers), threads, seconds)
    low, median, high = np.percentile(taken, [25, 50, 75], axis=0)
    ratios = np.median(taken / taken[:, [names.index(REFERENCE)]], axis=0)
    faster = np.median(taken[:, [names.index(EAGER)]] / taken, axis=0)
    columns = (median, low, high, ratios, faster)
    return [
        Timing(name, batch, threads, *(float(column[i]) for column in columns), rounds=len(taken))
        for i, name in enumerate(names)
    ]


def calls(
    adapters: Mapping[str, Adapts], width: int, batch: int, threads: int, others: Mapping[str, Call] | None = None
) -> list[Call]:
    """Return the calls of a round: `others`, then each adapter on a batch of random vectors."""
    vectors = np.random.default_rng(0).normal(size=(batch, width)).astype(np.float32)
    if any(isinstance(adapter, Compiled) for adapter in adapters.values()):
        torch.compiler.reset()  # which after eight compilations of a function runs it as it is, without a word
    for adapter in adapters.values():
        if isinstance(adapter, Exported):
            adapter.use(threads)
    timed = [lambda adapter=adapter: adapter.adapt(vectors) for adapter in adapters.values()]
    return [*(others or {}).values(), *timed]


def rounds(timed: Sequence[Call], threads: int, seconds: float) -> np.ndarray:
    """Time each call once a round: milliseconds, (rounds, calls)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for call in timed:
            call()  # warms up
        taken: list[list[float]] = []
        end = time.monotonic() + seconds
        while len(taken) < ROUNDS or time.monotonic() < end:
            taken.append([_milliseconds(call) for call in timed])
    finally:
        torch.set_num_threads(before)
    return np.array(taken)


def growth(width: int, folder: Path, device: torch.device = CPU) -> dict[str, dict[int, dict[str, float]]]:
    """Time the forms of DITS along each axis of `GROWTH`, printing each time; see `Latency.growth`."""
    curves: dict[str, dict[int, dict[str, float]]] = {axis: {} for axis in GROWTH}
    points = [(axis, value) for axis, values in GROWTH.items() for value in values]
    with progress_bar(points, desc="growth", unit="point") as bar:
        for axis, value in bar:
            at = {"batch": 1, "threads": 1, "steps": 10, "width": width, axis: value}
            timed = forms(f"dits-{at['steps']}", sampler(at["width"], schedule(at["steps"])), folder, device)
            taken = rounds(calls(timed, at["width"], at["batch"], at["threads"]), at["threads"], GROWTH_SECONDS)
            names = [name.partition(", ")[2] or "folded" for name in timed]
            curves[axis][value] = dict(zip(names, np.median(taken, axis=0).tolist(), strict=True))
            times = ", ".join(f"{name} {time_:.2f}" for name, time_ in curves[axis][value].items())
            bar.write(f"{axis} {value}: {times} ms", file=sys.stderr)
    return curves


def profile(width: int, device: torch.device = CPU) -> dict[str, float]:
    """Return the shares of time of the six largest operators, and of the rest, in one query of `dits-10`."""
    adapter = DITSAdapter(sampler(width, SAMPLERS["dits-10"])).for_inference().to(device)
    query = np.ones((1, width), np.float32)
    adapter.adapt(query)
    with torch.profiler.profile() as profiler:
        for _ in range(5):
            adapter.adapt(query)
    on_cpu = device.type == "cpu"
    times = {
        event.key.removeprefix("aten::"): event.self_cpu_time_total if on_cpu else event.self_device_time_total
        for event in profiler.key_averages()
        if event.device_type == torch.autograd.DeviceType.CPU  # a GPU's kernels are counted with what called them
    }
    total = sum(times.values())
    largest = sorted(times, key=lambda name: -times[name])[:6]
    shares = {name: times[name] / total for name in largest}
    return {**shares, "the rest": 1 - sum(shares.values())}


def _milliseconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
