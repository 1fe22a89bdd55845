"""A folder to work in, with clips and tiny models, as the READMEs' readers have one."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from tests.stores.conftest import qdrant_process, qdrant_server  # noqa: F401  (fixtures)


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
    Artifact(adapter, EmbeddingSpace.of(load_encoder(tiny_clip))).save(folder / "tiny-dits")
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
