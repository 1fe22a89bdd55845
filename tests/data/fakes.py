"""Encoders without a model or a decoder, for tests of caches: videos are small text files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dits_adapter.data.embed import embed
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import (
    VideoError,
)
from tests.stores.fakes import fake_space, unit

WIDTH, FRAMES = 8, 4

SECONDS = 30.0
"""Duration of every fake video."""


def write_pairs(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def vector_of(name: str, norm: float = 1.0) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return norm * unit(np.random.default_rng(seed).normal(size=WIDTH))


class FakeTexts:
    """A text's vector follows from its characters."""

    width = WIDTH
    name = "fake-0"
    text_cleaning = "none"
    max_tokens = 77

    def __init__(self) -> None:
        self.read: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        return np.stack([vector_of(text, 7.0) for text in texts])


class FakeEncoder:
    """A "video" is a file whose text names its vector; `broken…` cannot be read."""

    def __init__(self, seed: int = 0) -> None:
        self.space = fake_space(seed)
        self.frames = FRAMES
        self.encoder = FakeTexts()
        self.decoded: list[str] = []

    def iter_segments(
        self,
        paths: Sequence[str],
        *,
        on_error: Callable[[VideoError], object],
        spans: Callable[[Any], Sequence[tuple[float, float]]] | None = None,
    ) -> Iterator[SimpleNamespace]:
        for path in paths:
            self.decoded.append(Path(path).name)
            content = Path(path).read_text() if Path(path).exists() else "broken: no such file"
            if content.startswith("broken"):
                on_error(VideoError(path, content))
                continue
            given = [None] if spans is None else spans(SimpleNamespace(path=path, duration=SECONDS))
            for span in given:
                name = content if span in (None, (0.0, SECONDS)) else f"{content} {span}"
                frames = np.stack([vector_of(f"{name} {n}") for n in range(FRAMES)])
                yield SimpleNamespace(path=path, vector=unit(frames.mean(axis=0)), frame_vectors=frames)


def run(
    pairs: Path, out: Path, encoder: FakeEncoder | None = None, videos: Path | None = None, **options: Any
) -> Any:
    return embed(PairsFile(pairs, videos), out, encoder or FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for a death between two system calls."""
