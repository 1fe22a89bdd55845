"""The throughput benchmark does the same work in each way; how long it takes is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from benchmarks import latency, throughput
from tests.serve.conftest import save_adapter


@pytest.fixture(autouse=True)
def short_videos(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 1)
    monkeypatch.setattr(throughput, "SIZE", (64, 48))
    monkeypatch.setattr(throughput, "WIDTH", 64)
    monkeypatch.setattr(latency, "ROUNDS", 2)


@pytest.fixture
def started(monkeypatch):
    """Programs that are started; those that import something run in this process, which has imported it."""
    programs, run = [], subprocess.run

    def start(command, **options):
        if command[:2] != [sys.executable, "-c"]:
            return run(command, **options)
        programs.append(command[2])
        return run(command, **options) if command[2] == "pass" else exec(command[2], {})

    monkeypatch.setattr(throughput.subprocess, "run", start)
    return programs


def test_every_way_is_in_the_tables(tiny_clip, started, tmp_path, capsys, monkeypatch):
    adapter = save_adapter(tiny_clip, tmp_path / "tiny-dits", steps=2)
    monkeypatch.setattr(throughput, "ADAPTER", str(adapter))
    # Its export takes seconds, and tests/backends has it: here the artifact stands for it.
    artifact = partial(throughput.DITSQueryEncoder.from_pretrained, str(adapter))
    monkeypatch.setattr(throughput.DITSQueryEncoder, "from_pretrained", lambda *_, **__: artifact())
    monkeypatch.setattr(throughput.DITSQueryEncoder, "export_onnx", lambda encoder, folder: folder)
    short = ("a red ball", "a blue box", "a green cone")  # its CLIP spells
    monkeypatch.setattr(throughput, "video_captions", lambda scene: short)
    options = {"clips": 2, "texts": 3, "encoder": tiny_clip, "threads": 1, "seconds": 0, "out": tmp_path}
    assert throughput.main([word for name, value in options.items() for word in (f"--{name}", str(value))]) == 0
    found = TypeAdapter(throughput.Throughput).validate_json((tmp_path / "throughput.json").read_bytes())
    assert [rate.name for rate in found.videos[:2]] == [
        "plain script (decord, transformers, mean)",
        "VideoEncoder",
    ]
    assert len(found.videos) == 6
    assert len(found.texts) == 3
    assert list(found.clients) == [1, 8, 32]
    for rates in (found.videos, found.texts, *found.clients.values()):
        assert rates[0].ratio == 1
        assert all(0 < rate.low <= rate.median <= rate.high for rate in rates)
    assert list(found.starts) == [
        "nothing",
        "import dits_adapter",
        *(f'first query, backend="{b}"' for b in ("torch", "onnx")),
    ]
    assert all(seconds > 0 for seconds in found.starts.values())
    assert started == list(dict.fromkeys(started)) * (1 + latency.ROUNDS)
    assert len(set(started)) == len(found.starts)
    assert found.agreement > 0.9999  # the same twelve frames, the same vectors
    assert capsys.readouterr().out == (tmp_path / "throughput.md").read_text()
    assert json.loads((tmp_path / "throughput.json").read_text())["version"] == 2


def test_rates_are_items_a_second(monkeypatch):
    monkeypatch.setattr(throughput, "rounds", lambda *_: np.array([[100.0, 50.0], [200.0, 400.0], [100.0, 50.0]]))
    plain, ours = throughput.measure({"plain": None, "ours": None}, 5, 1, 0)
    assert (plain.median, ours.median, ours.ratio, ours.rounds) == (50, 100, 2, 3)


def test_clients_are_answered_each_way():
    asked = []

    def tower(batch, tokens):
        asked.append((batch, tokens))
        return torch.zeros(batch, 4)

    alone, shared = throughput.client_ways(3, 12, tower).values()
    assert len(alone()) == 12
    assert asked == [(1, throughput.TOKENS)] * 12
    asked.clear()
    assert [vector.shape for vector in shared()] == [(4,)] * 12
    assert sum(batch for batch, _ in asked) == 12
    assert max(batch for batch, _ in asked) <= 3


def test_a_folder_without_videos(tmp_path, capsys):
    with pytest.raises(SystemExit):
        throughput.main(["--videos", str(tmp_path)])
    assert "holds no .mp4 files" in capsys.readouterr().err
