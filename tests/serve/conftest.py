"""A small library behind the search page: real clips, a tiny CLIP, an adapter, a collection in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from qdrant_client import QdrantClient

from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.sampler import SamplerConfig
from dits_adapter.serve._app import create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._searcher import Searcher
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.ingest import ingest
from tests.conftest import ANSWER
from tests.stores.conftest import qdrant_process, qdrant_server  # noqa: F401  (fixtures)

HOME = "http://localhost"
QUERY = "a red ball rolls away"
CALIBRATION = Calibration(slope=16, offset=5, videos=30, queries=60, log_loss=0.3, ece=0.02, answer=ANSWER)


def write_clip(path: Path, seed: int, seconds: int = 4, codec: str = "libx264") -> None:
    """Write a clip whose color changes every second."""
    colors = np.random.default_rng(seed).integers(0, 256, (seconds, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(seconds * 10):
            image = np.broadcast_to(colors[n // 10], (48, 64, 3)).copy()
            image[10:20, n : n + 10] = 255 - colors[n // 10]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


def save_adapter(clip: Path, folder: Path, **config: object) -> Path:
    """Save a random DITS for a CLIP, with that CLIP beside it."""
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1, **config))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.06, generator=torch.Generator().manual_seed(0))
    if not (folder.parent / clip.name).exists():
        shutil.copytree(clip, folder.parent / clip.name)
    return Artifact(adapter, EmbeddingSpace.of(load_encoder(clip)), calibration=CALIBRATION).save(folder)


@pytest.fixture(scope="session")
def adapter(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_clip, tmp_path_factory.mktemp("adapters") / "tiny-dits")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 4 s, one of 8 s, and one that browsers do not play."""
    folder = tmp_path_factory.mktemp("library")
    for n in range(6):
        write_clip(folder / f"clip-{n}.mp4", n)
    write_clip(folder / "long.mp4", 6, seconds=8)
    write_clip(folder / "old.mp4", 7, codec="mpeg4")
    return folder


@pytest.fixture(scope="session")
def encoder(adapter: Path) -> DITSQueryEncoder:
    return DITSQueryEncoder.from_pretrained(adapter)


@pytest.fixture(scope="session")
def client(library: Path, tiny_clip: Path) -> Iterator[QdrantClient]:
    """A collection `videos` of two-second segments."""
    client = QdrantClient(":memory:")
    videos = VideoEncoder.from_pretrained(tiny_clip)
    ingest(QdrantStore(client), library, videos, segment_seconds=2, progress=False)
    yield client
    client.close()


@pytest.fixture(scope="session")
def searcher(client: QdrantClient, encoder: DITSQueryEncoder) -> Searcher:
    searcher = Searcher(QdrantStore(client, space=encoder.space), encoder)
    searcher.load()
    return searcher


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Place for people's judgements."""
    return tmp_path / "feedback.jsonl"


@pytest.fixture
def http(searcher: Searcher, file: Path) -> TestClient:
    """Client of an application that writes judgements to `file`."""
    return TestClient(create_app(searcher, feedback=FeedbackRecorder(file)), base_url=HOME)


def lines(file: Path) -> list[dict[str, Any]]:
    """Return what was written to a file of feedback, without its head."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()[1:]]
