"""The benchmark of adapters for few pairs on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import few_pairs
from benchmarks.few_pairs import main, parted, places
from benchmarks.halvings import read
from dits_adapter.vectors import unit


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(60, 16))
    texts = videos + rng.normal(size=videos.shape) + 2 * np.eye(16)[0]
    np.save(tmp_path / "pairs.npy", np.stack([videos, texts]).astype(np.float32))
    return tmp_path / "pairs.npy"


@pytest.mark.parametrize(("count", "searched"), [(20, 30), (40, 20)])
def test_nothing_that_is_learnt_from_is_searched(file, count, searched):
    other, gallery = parted(read(file), count, 3)
    assert (len(other.video), len(gallery.video)) == (count, searched)
    assert not {row.tobytes() for row in other.video} & {row.tobytes() for row in gallery.video}


def test_the_table_pairs_each_row_with_plain_and_the_linear_map(file, capsys, monkeypatch):
    names = ("gentle-linear", "gentle-dits, T' = 1")
    monkeypatch.setattr(few_pairs, "ADAPTERS", {name: few_pairs.ADAPTERS[name] for name in names})
    assert main(["--vectors", str(file), "--videos", "20", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "20 videos to learn from, 30 searched by 30 queries; 2 seeds" in out
    plain = []
    for seed in range(2):
        other, gallery = parted(read(file), 20, seed)
        place = places(unit(gallery.text), unit(other.text), gallery)[0]
        plain.append(100 * np.mean(place == 1))
        cosines = unit(gallery.text) @ gallery.video.T
        assert np.mean(cosines.argmax(1) == gallery.labels) == np.mean(place == 1)
    assert f"| {np.mean(plain):.1f} " in next(line for line in out.splitlines() if line.startswith("| plain "))
    for name in names:
        assert all(f"| {name}{bank} " in out for bank in few_pairs.BANKS)


def test_too_few_to_search(file, capsys):
    assert main(["--vectors", str(file), "--videos", "55"]) == 1
    assert "at least 10 must be left" in capsys.readouterr().err
