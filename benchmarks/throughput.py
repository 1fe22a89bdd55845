"""Throughput of clips and queries, against plain scripts: `python -m benchmarks.throughput`.

Video: files of ten seconds, generated unless `--videos` names a folder, through decord, transformers and a mean,
and through `VideoEncoder`; and each part of the work alone. Text: sentences through transformers, and through
`DITSQueryEncoder` with both backends, which adapts them too. Clients: several send queries to a text tower
of the size of CLIP ViT-B/32's, as in `benchmarks.latency`, each the next query after an answer: one after the
other, and sharing forward passes as in `dits-adapter serve`. Start: a new Python process, up to its first
query. As in `benchmarks.latency`, each is timed once in every round, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from decord import VideoReader
from pydantic import TypeAdapter

from benchmarks.clips.captions import video_captions
from benchmarks.clips.scenes import scenes
from benchmarks.latency import CPU, TOKENS, build_text_encoder, rounds
from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.cli import guarded
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.serve._batching import Batcher
from dits_adapter.vectors import unit
from dits_adapter.video.decode import decode_frames

FRAMES = 12
SIZE, RATE, SECONDS = (640, 360), 25, 10
"""Pixels, frames a second and seconds of the generated files: H.264 by x264's
preset `veryfast`, a keyframe in 250 frames, B-frames."""
ADAPTER, EXPORTED = "demo-dits", "exported"
CLIENTS = (1, 8, 32)
WIDTH = 512
"""Width of the text tower of the clients."""


@dataclass(frozen=True)
class Rate:
    """Rate of one way to do the work.

    Attributes:
        name: name of the way.
        median, low, high: items a second: the median and the quartiles over the rounds.
        ratio: median over the rounds of its rate over that of the first way.
        rounds: number of rounds.
    """

    name: str
    median: float
    low: float
    high: float
    ratio: float
    rounds: int


@dataclass(frozen=True)
class Throughput:
    """Result of one run of this benchmark.

    Attributes:
        videos: clips a second; the plain script first.
        texts: queries a second; likewise.
        clients: queries a second by number of clients; one after the other first.
        starts: seconds that a new process takes to import the package, and to its first vector.
        agreement: lowest cosine of a clip's vector from `VideoEncoder` to that of the plain script.
        threads: threads of the CPU that torch uses; decoders take as many as they do by default.
        environment: processor and versions.
        version: version of this layout.
    """

    videos: tuple[Rate, ...]
    texts: tuple[Rate, ...]
    clients: dict[int, tuple[Rate, ...]]
    starts: dict[str, float]
    agreement: float
    threads: int
    environment: dict[str, str]
    version: Literal[2] = 2

    def markdown(self) -> str:
        """Write all tables as Markdown."""
        parts = ["# Throughput", ", ".join(f"{key} {value}" for key, value in self.environment.items())]
        tables = {"Clips": self.videos, "Queries": self.texts}
        tables |= {f"Queries of {clients} client(s)": rates for clients, rates in self.clients.items()}
        for title, rates in tables.items():
            parts.append(f"## {title} a second, {self.threads} thread(s), {rates[0].rounds} rounds")
            cells = [[r.name, f"{r.median:.1f}", f"{r.low:.1f} – {r.high:.1f}", f"{r.ratio:.2f}"] for r in rates]
            parts.append(markdown_table(["", "a second", "quartiles", "over the first"], cells))
        parts.append("## Start of a process")
        parts.append(
            markdown_table(["", "seconds"], [[k, f"{seconds:.2f}"] for k, seconds in self.starts.items()])
        )
        parts.append(f"Cosine of a clip's vector to the plain script's: at least {self.agreement:.5f}.")
        return "\n\n".join(parts)


@guarded("benchmarks.throughput")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write throughput.json and throughput.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="folder of .mp4 files (default: generated)")
    parser.add_argument("--clips", type=int, default=8, help="how many files, at most (%(default)s)")
    parser.add_argument("--texts", type=int, default=128, help="how many sentences (%(default)s)")
    parser.add_argument("--encoder", default="demo-clip", help="a CLIP, for the videos (%(default)s)")
    parser.add_argument("--device", type=torch.device, default=CPU, help="a torch device (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads of the CPU (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each table (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/throughput"), metavar="DIR", help="%(default)s")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        if args.videos:
            paths = sorted(args.videos.glob("*.mp4"))[: args.clips]
        else:
            paths = [write_video(Path(scratch) / f"{number}.mp4", number) for number in range(args.clips)]
        if not paths:
            parser.error(f"{args.videos} holds no .mp4 files")
        encoder = VideoEncoder.from_pretrained(args.encoder, device=args.device, frames=FRAMES)
        ways = video_ways(paths, encoder)
        plain, ours = (ways[name]() for name in list(ways)[:2])
        agreement = float(np.min(np.sum(unit(plain) * unit(ours), axis=1)))
        videos = measure(ways, len(paths), args.threads, args.seconds)
        texts = measure(text_ways(args.texts, Path(scratch), args.device), args.texts, args.threads, args.seconds)
        tower = build_text_encoder(WIDTH, args.device)
        clients = {
            number: measure(client_ways(number, args.texts, tower), args.texts, args.threads, args.seconds / 3)
            for number in CLIENTS
        }
        begin = starts(Path(scratch))
        taken = np.median(rounds(list(begin.values()), args.threads, 0), axis=0) / 1e3
    seconds = dict(zip(begin, taken.tolist(), strict=True))
    surroundings = environment() | {"torch on": str(args.device)}
    throughput = Throughput(videos, texts, clients, seconds, agreement, args.threads, surroundings)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "throughput.json").write_bytes(TypeAdapter(Throughput).dump_json(throughput, indent=1) + b"\n")
    (args.out / "throughput.md").write_text(throughput.markdown() + "\n", encoding="utf-8")
    print(throughput.markdown())
    return 0


def write_video(path: Path, seed: int) -> Path:
    """Write ten seconds of a coarse texture that moves."""
    width, height = SIZE
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3)).astype(np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(RATE * SECONDS):
            moved = np.ascontiguousarray(np.roll(texture, (number, 2 * number), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, "rgb24")))
        container.mux(stream.encode())
    return path


def video_ways(paths: Sequence[Path], encoder: VideoEncoder) -> dict[str, Callable[[], np.ndarray]]:
    """Return the ways to embed videos, (n, d), the plain script first, then its parts alone."""
    clip = encoder.encoder
    assert isinstance(clip, DualEncoder)
    images = list(_frames(paths[0]))
    pixels = clip.preprocess(images)

    def ours() -> np.ndarray:
        return np.stack([segment.vector for segment in encoder.iter_segments(paths)])

    return {
        "plain script (decord, transformers, mean)": lambda: plain_video_script(paths, clip),
        "VideoEncoder": ours,
        "decoding alone, decord": lambda: np.stack([_frames(path) for path in paths]),
        "decoding alone, VideoEncoder's": lambda: np.stack([decode_frames(path, FRAMES).frames for path in paths]),
        "preprocessing alone": lambda: np.stack([clip.preprocess(images) for _ in paths]),
        "image tower alone": lambda: np.stack([clip.embed([pixels]).frames for _ in paths]),
    }


def plain_video_script(paths: Sequence[Path], clip: DualEncoder) -> np.ndarray:
    """Embed videos by a plain script, a file at a time: (n, d)."""
    vectors = []
    for path in paths:
        inputs = clip.frames.image_processor(images=list(_frames(path)), return_tensors="pt").to(clip.model.device)
        with torch.no_grad():
            features = clip.model.get_image_features(**inputs).pooler_output
        features = features / features.norm(dim=1, keepdim=True)
        vectors.append(features.mean(dim=0).cpu().numpy())
    return np.stack(vectors)


def _frames(path: Path) -> np.ndarray:
    reader = VideoReader(str(path))
    middles = [int((number + 0.5) * len(reader) / FRAMES) for number in range(FRAMES)]
    frames: np.ndarray = reader.get_batch(middles).asnumpy()
    return frames


def text_ways(count: int, folder: Path, device: torch.device) -> dict[str, Callable[[], np.ndarray]]:
    """Return the ways to encode sentences, (n, d), the plain script first; an export goes into the folder."""
    texts = [caption for scene in scenes("test") for caption in video_captions(scene)][:count]
    eager = DITSQueryEncoder.from_pretrained(ADAPTER, device=device)
    exported = DITSQueryEncoder.from_pretrained(eager.export_onnx(folder / EXPORTED), backend="onnx")
    clip = VideoEncoder.from_pretrained(ADAPTER, device=device).encoder
    assert isinstance(clip, DualEncoder)

    def plain() -> np.ndarray:
        inputs = clip.texts.tokenizer(texts, padding=True, return_tensors="pt").to(clip.model.device)
        with torch.no_grad():
            return clip.model.get_text_features(**inputs).pooler_output.cpu().numpy()

    return {
        "plain script (transformers), no adapter": plain,
        'encode_query, backend="torch"': lambda: eager.encode_query(texts),
        'encode_query, backend="onnx"': lambda: exported.encode_query(texts),
    }


def starts(folder: Path) -> dict[str, Callable[[], object]]:
    """Return calls that start a process: nothing, the import, and one query a backend; after `text_ways`."""
    query = "from dits_adapter import DITSQueryEncoder as E; E.from_pretrained({}).encode_query('a red circle')"
    codes = {
        "nothing": "pass",
        "import dits_adapter": "import dits_adapter",
        'first query, backend="torch"': query.format(repr(ADAPTER)),
        'first query, backend="onnx"': query.format(f"{str(folder / EXPORTED)!r}, backend='onnx'"),
    }
    return {
        name: lambda code=code: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        for name, code in codes.items()
    }


def client_ways(
    clients: int, queries: int, tower: Callable[[int, int], torch.Tensor]
) -> dict[str, Callable[[], object]]:
    """Return the ways to serve the queries of several clients by a text tower of `build_text_encoder`."""
    one_at_a_time = threading.Lock()

    def alone(_: int) -> object:
        with one_at_a_time:
            return tower(1, TOKENS)

    shared: Batcher[int, object] = Batcher(lambda batch: tower(len(batch), TOKENS).unbind())

    def serve(answer: Callable[[int], object]) -> object:
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(answer, range(queries)))

    return {"one after the other": lambda: serve(alone), "sharing forward passes": lambda: serve(shared)}


def measure(
    ways: Mapping[str, Callable[[], object]], items: int, threads: int, seconds: float
) -> tuple[Rate, ...]:
    """Time each way once a round, and count items a second."""
    rates = 1e3 * items / rounds(list(ways.values()), threads, seconds)
    low, median, high = np.percentile(rates, [25, 50, 75], axis=0)
    ratios = np.median(rates / rates[:, :1], axis=0)
    rows = zip(ways, *(column.tolist() for column in (median, low, high, ratios)), strict=True)
    return tuple(Rate(*row, rounds=len(rates)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
