"""The table of queries that nothing fits, on made-up vectors whose best scores tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.unanswerable import HEAD, main
from dits_adapter.vectors import unit


def test_the_best_score_tells_more_than_the_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    videos = unit(rng.normal(size=(240, 16)))
    texts = unit(videos + 0.25 * rng.normal(size=videos.shape))
    np.save(tmp_path / "made-up.npy", np.stack([videos, texts]).astype(np.float32))
    assert main(["--vectors", str(tmp_path / "made-up.npy"), "--halvings", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("made-up: 120 queries, 60 videos searched; a bank of 60; fitted on 60 queries; 2 ")
    cells = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    rows = {name.strip(): [float(cell.split("±")[0]) for cell in row] for name, *row in cells[2:]}
    assert len(rows) == 8
    assert all(len(row) == len(HEAD) for row in rows.values())
    best, margin = rows["score of the best hit"], rows["margin to the second hit"]
    assert best[0] > max(0.9, margin[0])
    assert best[2] < margin[2]
    assert best[3] < 0.15
    assert main(["--vectors", str(tmp_path / "made-up.npy"), "--halvings", "1"]) == 1
