"""Pairs, shards and encoders that the tests of caches share."""

from __future__ import annotations

from pathlib import Path

import pytest

from dits_adapter.data import cache_writer
from dits_adapter.encoders import Encoder, load_encoder
from tests.data.fakes import write_pairs


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 15 texts, and of 3 videos with 4 frames each."""
    monkeypatch.setattr(cache_writer, "SHARD_VECTORS", 15)


@pytest.fixture
def fake_pairs(tmp_path: Path, small_shards: None) -> Path:
    """Eleven fake videos with 41 texts; videos 4 and 7, with 4 texts each, are broken."""
    for n in range(11):
        (tmp_path / f"{n}.mp4").write_text("broken: no frames" if n in (4, 7) else f"video {n}")
    texts = {n: [f"text {n} {i}" for i in range(1 + n % 3 * 3)] for n in range(11)}
    lines = [{"video": f"{n}.mp4", "text": texts[n], "id": f"clip-{n}"} for n in range(11)]
    return write_pairs(tmp_path / "pairs.jsonl", lines)


@pytest.fixture
def clip(tiny_clip: Path) -> Encoder:
    return load_encoder(tiny_clip, device="cpu")
