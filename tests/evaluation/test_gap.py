"""`dits-adapter gap` from the shell, and its figures against the formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dits_adapter.adapters import DITSAdapter, mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.evaluation.gap import GapStatistics
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace


@pytest.fixture(scope="module")
def pairs(tiny_clip, tmp_path_factory):
    rng = np.random.default_rng(0)
    video = rng.normal(size=(40, 32)).astype(np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    labels = np.repeat(np.arange(40), 2)
    text = (video[labels] + 0.1 * rng.normal(size=(80, 32)) + 0.5).astype(np.float32)
    file = tmp_path_factory.mktemp("gap") / "pairs.safetensors"
    Pairs(text, video, labels, EmbeddingSpace.of(load_encoder(tiny_clip))).save(file)
    return file


@pytest.mark.parametrize("kind", ["dits", "mean-shift"])
def test_gap_from_the_shell(kind, pairs, tmp_path, capsys):
    loaded = Pairs.load(pairs)
    if kind == "dits":
        torch.manual_seed(0)
        adapter = DITSAdapter(SamplerConfig(width=32, depth=1)).eval()
    else:
        adapter = mean_shift(loaded.text, loaded.video[loaded.labels])
    folder = Artifact(adapter, loaded.space).save(tmp_path / "adapter")
    assert main(["gap", str(pairs), str(folder), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    if kind == "mean-shift":
        assert found["adapted"]["means_apart"] < 0.3 * found["plain CLIP"]["means_apart"]
        assert found["adapted"]["cosine"] > found["plain CLIP"]["cosine"]
    else:  # untrained: the identity
        assert found["adapted"]["l2"] == pytest.approx(found["plain CLIP"]["l2"], abs=1e-6)
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"plane.png", "histograms.png"} | ({"trajectories.png"} if kind == "dits" else set())
    assert "80 pairs" in capsys.readouterr().out


@pytest.mark.parametrize("fraction", [0.2, None])
def test_of_the_training_cache_the_held_out_pairs_are_taken(fraction, pairs, tmp_path, capsys):
    loaded = Pairs.load(pairs)
    record = {"held_out": {"pairs": loaded.digest, "fraction": fraction, "seed": 5, "most": 100}}
    adapter = mean_shift(loaded.text, loaded.video[loaded.labels])
    folder = Artifact(adapter, loaded.space, record).save(tmp_path / "adapter")
    with pytest.warns(UserWarning, match="16 texts of 8 videos" if fraction else "flatter it"):
        assert main(["gap", str(pairs), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"({16 if fraction else 80} pairs)" in capsys.readouterr().out
    if fraction:
        part = loaded.split(0.2, 5)[1]
        shifted = GapStatistics.of(adapter.adapt(part.text), part.video[part.labels])
        found = json.loads((tmp_path / "out" / "statistics.json").read_text())
        assert found["adapted"]["cosine"] == pytest.approx(shifted.cosine, abs=1e-5)
    others = Pairs(loaded.text, np.roll(loaded.video, 1, axis=0), loaded.labels, loaded.space)
    assert others.digest != loaded.digest


def test_statistics_against_loops():
    rng = np.random.default_rng(1)
    text, video = rng.normal(size=(2, 7, 5))
    found = GapStatistics.of(text, video)
    deltas = [[v - t for t, v in zip(a, b, strict=True)] for a, b in zip(text, video, strict=True)]
    assert found.l1 == pytest.approx(np.mean([sum(map(abs, d)) for d in deltas]))
    assert found.l2 == pytest.approx(np.mean([sum(x * x for x in d) ** 0.5 for d in deltas]))
    assert found.cosine == pytest.approx(np.mean([sum(a * b) for a, b in zip(text, video, strict=True)]))
    assert found.means_apart == pytest.approx(sum(x * x for x in np.mean(deltas, axis=0)) ** 0.5)


def test_another_space_is_refused(pairs, other_clip, tmp_path, capsys):
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1))
    folder = Artifact(adapter, EmbeddingSpace.of(load_encoder(other_clip))).save(tmp_path / "adapter")
    assert main(["gap", str(pairs), str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "other-clip" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
