"""An encoder whose videos are small text files: what ingestion does with an encoder, without a decoder or a model.

Run as a program, it starts one process after the other that ingests a folder slowly, to be killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dits_adapter.errors import VideoError
from dits_adapter.space import EmbeddingSpace
from tests.spaces import made_up_space

WIDTH, FRAMES = 8, 4


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def fake_space(seed: int = 0, width: int = WIDTH) -> EmbeddingSpace:
    return made_up_space(width, seed=seed, frames=FRAMES)


def write_video(path: Path, kind: str = "good", seed: int = 0, segments: int = 2) -> Path:
    """Write a "video": `good`, `broken` (fails at once), or `half` (fails after its segments)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{kind} {seed} {segments}")
    return path


class FakeEncoder:
    """Yields what the text of a file asks for and remembers which files it was given."""

    def __init__(self, space: EmbeddingSpace | None = None, *, delay: float = 0.0) -> None:
        self.space = space or fake_space()
        self.delay = delay
        self.decoded: list[str] = []
        self.segments = 0
        self.suspects: list[str] = []
        self.before: Callable[[str], None] = lambda path: None

    def iter_segments(
        self,
        paths: Iterable[str],
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        on_error: Callable[[VideoError], None],
        skip: Callable[[str], int] = lambda path: 0,
        suspect: Callable[[str], bool] = lambda path: False,
    ) -> Iterator[Any]:
        for path in paths:
            self.decoded.append(path)
            self.suspects += [path] if suspect(path) else []
            self.before(path)
            words = Path(path).read_text().split()
            if len(words) != 3 or words[0] == "broken":
                on_error(VideoError(path, "the file is empty" if not words else "no video stream"))
                continue
            kind, seed, segments = words
            rng = np.random.default_rng(int(seed))
            first = skip(path)
            for n in range(int(segments)):
                frames = unit(rng.normal(size=(FRAMES, self.space.video.width)))
                if n < first:
                    continue
                time.sleep(self.delay)
                self.segments += 1
                yield SimpleNamespace(
                    path=path,
                    start=2.0 * n,
                    end=2.0 * n + 2,
                    fps=30000 / 1001,
                    duration=2.0 * int(segments),
                    vector=unit(frames.mean(axis=0)),
                    frame_vectors=frames,
                    timestamps=2 * n + (np.arange(FRAMES) + 0.5) / 2,
                    decoder="fake",
                    remark="",
                )
            if kind == "half":
                on_error(VideoError(path, "it ends early"))


def ingest_when_told(location: str, collection: str, folder: str) -> None:
    """For a line on stdin, start an ingestion in a process and print its number; for the next, its end."""
    from dits_adapter.stores import ingest, session
    from dits_adapter.stores.qdrant.store import QdrantStore

    session.BATCH = 3
    for _ in sys.stdin:
        process = os.fork()  # imports take longer than what is to be killed
        if process == 0:
            with QdrantStore(location, collection) as store:
                ingest.ingest(store, folder, FakeEncoder(delay=0.001), progress=False)  # type: ignore[arg-type]
            os._exit(0)
        print(process, flush=True)
        next(sys.stdin)  # not waited for before, so that its number stays its own
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    ingest_when_told(*sys.argv[1:])
