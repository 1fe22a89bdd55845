"""The throughput benchmark does the same work in each way; how long it takes is no test's business."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import TypeAdapter

from benchmarks import throughput


@pytest.fixture(autouse=True)
def short_videos(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 1)
    monkeypatch.setattr(throughput, "SIZE", (64, 48))


def test_every_way_is_in_the_tables(tmp_path, capsys):
    arguments = ["--clips", "2", "--texts", "3", "--threads", "1", "--seconds", "0", "--out", str(tmp_path)]
    assert throughput.main(arguments) == 0
    found = TypeAdapter(throughput.Throughput).validate_json((tmp_path / "throughput.json").read_bytes())
    assert [rate.name for rate in found.videos[:2]] == [
        "plain script (decord, transformers, mean)",
        "VideoEncoder",
    ]
    assert len(found.videos) == 6
    assert len(found.texts) == 3
    for rates in (found.videos, found.texts):
        assert rates[0].ratio == 1
        assert all(0 < rate.low <= rate.median <= rate.high for rate in rates)
    assert found.agreement > 0.9999  # the same twelve frames, the same vectors
    assert capsys.readouterr().out == (tmp_path / "throughput.md").read_text()
    assert json.loads((tmp_path / "throughput.json").read_text())["version"] == 1


def test_rates_are_items_a_second(monkeypatch):
    monkeypatch.setattr(throughput, "rounds", lambda *_: np.array([[100.0, 50.0], [200.0, 400.0], [100.0, 50.0]]))
    (plain, ours), number = throughput.measure({"plain": None, "ours": None}, 5, 1, 0)
    assert (plain.median, ours.median, ours.ratio, number) == (50, 100, 2, 3)


def test_a_folder_without_videos(tmp_path, capsys):
    with pytest.raises(SystemExit):
        throughput.main(["--videos", str(tmp_path)])
    assert "holds no .mp4 files" in capsys.readouterr().err
