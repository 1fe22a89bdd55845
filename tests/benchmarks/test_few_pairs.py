"""The benchmark of adapters for few pairs on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import few_pairs
from benchmarks.few_pairs import main, parted
from benchmarks.halvings import read
from dits_adapter.adapters import _gentle
from dits_adapter.vectors import unit


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(60, 16))
    texts = videos + rng.normal(size=videos.shape) + 2 * np.eye(16)[0]
    np.save(tmp_path / "pairs.npy", np.stack([videos, texts]).astype(np.float32))
    return tmp_path / "pairs.npy"


@pytest.mark.parametrize(("count", "searched"), [(20, 30), (40, 20)])
def test_nothing_that_is_learnt_from_is_searched(count, searched):
    other, gallery = parted(60, count, 3)
    assert (len(set(other)), len(set(gallery))) == (count, searched)
    assert not set(other) & set(gallery)


def test_the_table_pairs_each_row_with_plain_and_the_linear_map(file, tmp_path, capsys, monkeypatch):
    names = ("mean-shift", "gentle-linear", "gentle-dits-1")
    monkeypatch.setattr(_gentle, "_MOST_STEPS", 4)
    command = ["--vectors", str(file), "--out", str(tmp_path / "rows"), "--videos", "20"]
    assert main([*command, "--seeds", "2", "--rows", *names]) == 0
    out = capsys.readouterr().out
    assert "20 videos to learn from, 30 searched by 30 queries; 2 seeds" in out
    pairs, hits, gains = read(file), [], {}
    for seed in range(2):
        other, gallery = parted(60, 20, seed)
        cosines = unit(pairs.text[gallery]) @ pairs.video[gallery].T
        shifted = pairs.text[gallery] / np.linalg.norm(pairs.text[gallery], axis=1, keepdims=True)
        shifted = shifted + (pairs.video[other] - unit(pairs.text[other])).mean(0)
        for video, before, after in zip(gallery, cosines, shifted @ pairs.video[gallery].T, strict=True):
            right = np.flatnonzero(gallery == video)[0]
            hits.append(before.argmax() == right)
            gains.setdefault(video, []).append(100 * (int(after.argmax() == right) - hits[-1]))
    mean = np.mean(np.concatenate(list(gains.values())))
    sums = np.array([np.sum(np.array(of_video) - mean) for of_video in gains.values()])
    error = np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / 60
    row = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("|")}
    assert f"| {100 * np.mean(hits):.1f} / " in row["plain"]
    assert f" {mean:+.1f} [{mean - 1.96 * error:+.1f}, {mean + 1.96 * error:+.1f}] " in row["mean-shift"]
    assert all(name + bank in row for name in names[1:] for bank in few_pairs.BANKS)
    assert "mean-shift + query bank" not in row
    cells = {name: [cell.strip() for cell in line.split("|")[2:-1]] for name, line in row.items()}
    for bank in few_pairs.BANKS[1:]:
        first, plain = (float(cells[name + bank][0].split()[0]) for name in ("gentle-dits-1", "plain"))
        assert float(cells["gentle-dits-1" + bank][2].split()[0]) == pytest.approx(first - plain, abs=0.11)
    assert {cells[name][2] for name in ("plain + score bias", "mean-shift", "gentle-dits-1")} == {"–"}


def test_what_is_measured_is_kept_for_these_pairs_alone(file, tmp_path, capsys, monkeypatch):
    learnt = []
    closed_form = few_pairs.in_closed_form
    monkeypatch.setattr(few_pairs, "ROWS", {"plain": few_pairs.ROWS["plain"]})
    for name in ("mean-shift", "procrustes"):
        row = lambda other, name=name: learnt.append(name) or closed_form(name, other)  # noqa: E731
        monkeypatch.setitem(few_pairs.ROWS, name, row)
    kept = tmp_path / "rows"
    command = ["--vectors", str(file), "--out", str(kept), "--videos", "20", "--rows", "mean-shift", "procrustes"]
    assert main([*command, "--seeds", "2"]) == 0
    whole = capsys.readouterr().out
    for path in kept.glob("mean-shift-*"):  # as if killed before these were measured
        path.unlink()
    learnt.clear()
    assert main([*command, "--seeds", "2"]) == 0
    assert capsys.readouterr().out == whole
    assert learnt == ["mean-shift", "mean-shift"]
    learnt.clear()
    np.save(file, np.load(file)[:, ::-1])
    assert main([*command, "--seeds", "1"]) == 0
    assert learnt == ["mean-shift", "procrustes"]


def test_too_few_to_search(file, tmp_path, capsys):
    command = ["--vectors", str(file), "--out", str(tmp_path / "rows")]
    assert main([*command, "--videos", "20", "55"]) == 1
    assert "at least 10 must be left" in capsys.readouterr().err
    assert main([*command, "--rows", "no-such"]) == 1
    assert "'no-such'" in capsys.readouterr().err
