"""The benchmark of feedback by simulated people, on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import feedback
from benchmarks.feedback import choice, main, parted


def test_parts_share_no_video():
    parts = parted(100, 3)
    assert [len(part) for part in parts] == [45, 45, 10]
    assert len(set(np.concatenate(parts))) == 100


def test_people_look_from_the_top_and_choose_what_is_right_where_they_see_it():
    rng = np.random.default_rng(0)
    hits = {"plain": np.arange(10), "adapted": np.arange(10)[::-1]}
    chosen = [choice(rng, hits, 2, 1.0) for _ in range(6000)]
    third, eighth, first = (chosen.count(place) / 6000 for place in (("plain", 3), ("adapted", 8), ("plain", 1)))
    assert third == pytest.approx(0.9 / 3, abs=0.02)
    assert eighth == pytest.approx(0.9 / 8 * (1 - 0.9 / 3), abs=0.02)
    assert first == pytest.approx(chosen.count(("adapted", 1)) / 6000, abs=0.02)
    lost = (1 - 0.9 / 3) * (1 - 0.9 / 8)
    assert first == pytest.approx(lost * 0.3 / 2, abs=0.02)
    assert chosen.count("none") / 6000 == pytest.approx(lost * 0.7 / 2, abs=0.02)


def test_both_tables(tmp_path, capsys):
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(120, 16))
    texts = videos + rng.normal(size=videos.shape) + 2 * np.eye(16)[0]
    np.save(tmp_path / "pairs.npy", np.stack([videos, texts]).astype(np.float32))
    command = [
        "--vectors",
        str(tmp_path / "pairs.npy"),
        "--searches",
        "50",
        "--seeds",
        "1",
        "--adapter",
        "mean-shift",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    for name in (feedback.PLAIN, "all choices", f"choices of confidence {feedback.SURE:g}", feedback.TRUE):
        assert out.count(name) == 1
    assert "true 1\n" in out
    assert "| 1 " in out
