"""The benchmark of halvings on vectors whose answer is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.halvings import ROWS, Figures, behind, gentle, halves, main, read, report
from dits_adapter.vectors import unit


@pytest.fixture
def file(tmp_path):
    """Sixty texts and videos that share all but noise; texts lie a large step apart."""
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(60, 16))
    texts = videos + rng.normal(size=videos.shape) + 2 * np.eye(16)[0]
    np.save(tmp_path / "pairs.npy", np.stack([videos, texts]).astype(np.float32))
    return tmp_path / "pairs.npy"


def test_halves_share_no_video_and_lose_none(file):
    pairs = read(file)
    searched, other = halves(pairs, 3)
    videos = [{row.tobytes() for row in half.video} for half in (searched, other)]
    assert [len(half) for half in videos] == [30, 30]
    assert not videos[0] & videos[1]
    both = np.sort(np.concatenate([searched.text, other.text]), axis=0)
    assert np.array_equal(both, np.sort(pairs.text, axis=0))


def test_gains_are_paired_differences_to_plain(file):
    out = report(read(file), 3, {name: ROWS[name] for name in ("query bank", "score bias")})
    assert "30 queries, 30 videos searched; 30 other queries; 3 halvings" in out
    plain, gains = [], []
    for number in range(3):
        searched, other = halves(read(file), number)
        cosines = unit(searched.text) @ searched.video.T
        plain.append(100 * np.mean(cosines.argmax(1) == searched.labels))
        scores = ROWS["query bank"][1](other, searched)[:]
        gains.append(100 * np.mean(scores.argmax(1) == searched.labels) - plain[-1])
    assert re.search(rf"plain CLIP +\| +nothing \| +{np.mean(plain):.1f} ", out)
    error = np.std(gains, ddof=1) / np.sqrt(3)
    assert f"{np.mean(gains):+.1f} ± {error:.1f}" in re.search(r"query bank .*", out)[0]


def test_a_bank_behind_an_adapter_holds_texts_out_of_fold_and_can_be_saved(file):
    _, other = halves(read(file), 0)
    adapter = behind("gentle-linear", other)
    fit = gentle("gentle-linear", other)
    expected = {row.tobytes() for row in unit(fit.out_of_fold)}
    assert {row.tobytes() for row in adapter.bank.numpy()} == expected
    rebuilt = type(adapter)(adapter.config)
    rebuilt.load_state_dict(adapter.state_dict())
    assert np.array_equal(rebuilt.eval().adapt(other.text), adapter.adapt(other.text))


def test_figures_count_hits(file):
    pairs = read(file)
    assert Figures.of(pairs.video @ pairs.video.T, pairs) == Figures(100, 100, 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [(np.zeros((3, 5, 4)), "expected (2, n, d)"), (b"nothing", "is no .npy array"), (None, "cannot be read")],
)
def test_files_of_something_else(content, message, tmp_path, capsys):
    path = tmp_path / "pairs.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    assert main(["--vectors", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_one_halving_has_no_error(file, capsys):
    assert main(["--vectors", str(file), "--halvings", "1"]) == 1
    assert "at least 2" in capsys.readouterr().err
