"""A folder to work in, with clips and tiny models, as the READMEs' readers have one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.rows import SegmentRow, segment_id, video_id_of
from tests.conftest import ANSWER
from tests.stores.conftest import qdrant_process, qdrant_server  # noqa: F401  (fixtures)

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

QUERY = "a red ball rolls away"
WIDTH = 32
CALIBRATION = Calibration(slope=8, offset=-1, videos=20, queries=100, log_loss=0.2, ece=0.01, answer=ANSWER)


def write_clip(path: Path, seed: int, seconds: int = 4, fps: int = 10) -> None:
    """Write an mp4: a square that moves over a background, in colors of the seed."""
    colors = np.random.default_rng(seed).integers(0, 256, (2, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(seconds * fps):
            image = np.broadcast_to(colors[0], (48, 64, 3)).copy()
            image[10:30, n : n + 20] = colors[1]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    """A folder with `videos`, and with tiny models under the names of the bundled ones."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(tiny_clip, folder / "tiny-clip")
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.06, generator=torch.Generator().manual_seed(0))
    space = EmbeddingSpace.of(load_encoder(tiny_clip))
    Artifact(adapter, space).save(folder / "tiny-dits")
    Artifact(adapter, space, calibration=CALIBRATION).save(folder / "tiny-calibrated")
    (folder / "videos").mkdir()
    for seed in range(6):
        write_clip(folder / "videos" / f"{seed}.mp4", seed)
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, as the current folder."""
    folder = Path(shutil.copytree(prepared, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(prepared: Path) -> DITSQueryEncoder:
    return DITSQueryEncoder.from_pretrained(prepared / "tiny-dits")


def rows(segments: int = 1) -> list[SegmentRow]:
    """Twenty videos at random places of the sphere, of segments of two seconds that are almost alike."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(20):
        frames = rng.normal(size=(2, WIDTH)).astype(np.float32)
        video_id = video_id_of(str(n))
        for segment in range(segments):
            moved = frames + rng.normal(size=frames.shape).astype(np.float32) * 0.02 * segment
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            pooled = moved.mean(axis=0)
            start = 1.0 + 2.0 * segment
            made.append(
                SegmentRow(
                    id=segment_id(video_id, start, start + 2.0),
                    video_id=video_id,
                    path=f"/{n}.mp4",
                    start=start,
                    end=start + 2.0,
                    timestamps=(start + 0.5, start + 1.5),
                    duration=2.0 + n,
                    fps=10.0,
                    decoder="none",
                    size=1,
                    mtime_ns=1,
                    segments=segments if segment == segments - 1 else None,
                    vector=pooled / np.linalg.norm(pooled),
                    frame_vectors=moved,
                )
            )
    return made


@pytest.fixture
def client(encoder: DITSQueryEncoder) -> Iterator[QdrantClient]:
    """A collection `videos` in memory, as ingestion makes it."""
    client = QdrantClient(":memory:")
    store = QdrantStore(client)
    store.create(CollectionMetadata(space=encoder.space))
    store.write(rows())
    yield client
    client.close()


@pytest.fixture
def expected(encoder: DITSQueryEncoder) -> list[tuple[str, float]]:
    """The five videos nearest to the adapted query, and their cosines, by brute force."""
    vectors = np.array([row.vector for row in rows()])
    scores = vectors @ encoder.encode_query(QUERY)
    plain = vectors @ encoder.encode_document(QUERY)
    best = np.argsort(-scores)[:5]
    assert list(best) != list(np.argsort(-plain)[:5])  # else nothing here could tell adapted from plain
    return [(f"/{n}.mp4", float(scores[n])) for n in best]


def assert_found(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [path for path, _ in found] == [path for path, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)
