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
from dits_adapter.evaluation.gap import GapStatistics, gap_steps, with_noise
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from tests.spaces import made_up_space


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
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())["statistics"]
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
        found = json.loads((tmp_path / "out" / "statistics.json").read_text())["statistics"]
        assert found["adapted"]["cosine"] == pytest.approx(shifted.cosine, abs=1e-5)
    others = Pairs(loaded.text, np.roll(loaded.video, 1, axis=0), loaded.labels, loaded.space)
    assert others.digest != loaded.digest


def test_no_more_videos_than_asked_for_are_measured(pairs, tmp_path, capsys):
    loaded = Pairs.load(pairs)
    adapter = mean_shift(loaded.text, loaded.video[loaded.labels])
    folder = Artifact(adapter, loaded.space).save(tmp_path / "adapter")
    with pytest.warns(UserWarning, match="of 40 videos to measure on 25 are drawn"):
        assert main(["gap", str(pairs), str(folder), "--videos", "25", "--out", str(tmp_path / "out")]) == 0
    assert "(50 pairs)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="of 40 videos to measure on 25 are drawn"):
        assert main(["calibrate", str(pairs), str(folder), "--videos", "25"]) == 0
    assert Artifact.load(folder).calibration.videos == 25


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


def random_dits(width=32, **options):
    torch.manual_seed(0)
    adapter = DITSAdapter(SamplerConfig(width=width, depth=1, steps=3, input="raw", **options))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return adapter.eval()


def test_the_distribution_of_each_step_against_equation_8():
    rng = np.random.default_rng(2)
    text, video = rng.normal(size=(2, 6, 8))
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    adapter = random_dits(8).double()
    steps = gap_steps(adapter, text, video)
    assert [step.t for step in steps] == [3, 2, 1]
    v, schedule = torch.from_numpy(text), adapter.sampler.schedule
    for step in steps:
        with torch.no_grad():
            bias = schedule.chi[step.t - 1] * adapter.sampler.network(v, step.t)
        v = v - bias
        assert step.bias == pytest.approx(float(bias.norm(dim=1).mean()), rel=1e-6)
        assert step.scale == pytest.approx(schedule.beta[step.t - 1] ** 0.5 if step.t > 1 else 0)
        unit = torch.nn.functional.normalize(v, dim=1).numpy()
        assert step.left.cosine == pytest.approx(float(np.sum(unit * video, axis=1).mean()), rel=1e-6)


def test_noise_at_inference_is_that_of_the_sampler_and_comes_from_a_seed():
    text = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    adapter = random_dits(8)
    quiet, noisy = with_noise(adapter, text, 0.0), with_noise(adapter, text, 1.0)
    np.testing.assert_allclose(quiet, adapter.adapt(text), atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    expected = adapter.sampler(torch.from_numpy(text), noise_scale=1.0, generator=generator).detach()
    np.testing.assert_allclose(noisy, torch.nn.functional.normalize(expected, dim=1), atol=1e-6)
    assert np.abs(noisy - quiet).max() > 0.1


def test_two_adapters_are_compared_on_the_pairs_that_both_have(pairs, tmp_path, capsys):
    loaded = Pairs.load(pairs)
    fixed = Artifact(random_dits(), loaded.space).save(tmp_path / "fixed")
    rng = np.random.default_rng(1)
    space = made_up_space(24)
    video = rng.normal(size=(40, 24)).astype(np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    text = rng.normal(size=(80, 24)).astype(np.float32)
    Pairs(text, video, loaded.labels, space).of_videos(np.arange(5, 40)).save(tmp_path / "joint.safetensors")
    joint = Artifact(random_dits(24), space).save(tmp_path / "joint")
    against = ["--against", str(tmp_path / "joint.safetensors"), str(joint)]
    command = ["gap", str(pairs), str(fixed), *against, "--noise", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    report = json.loads((tmp_path / "out" / "statistics.json").read_text())
    written = report["statistics"]
    kept = loaded.of_videos(np.arange(5, 40))
    expected = {
        "adapted": GapStatistics.of(random_dits().adapt(kept.text), kept.video[kept.labels]),
        "adapted, against": GapStatistics.of(random_dits(24).adapt(text)[10:], video[loaded.labels][10:]),
    }
    for name, statistics in expected.items():
        assert written[name]["cosine"] == pytest.approx(statistics.cosine, abs=1e-5)
    assert written["noise on"]["l1"] != written["adapted"]["l1"]
    assert [step["t"] for step in report["steps"]] == [3, 2, 1]
    assert "70 pairs" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
    other = Pairs(text, video, loaded.labels, space, [f"x{n}" for n in range(40)])
    other.save(tmp_path / "joint.safetensors")
    assert main(command) == 1
    assert "share no videos" in capsys.readouterr().err


def test_noise_is_for_dits(pairs, tmp_path, capsys):
    loaded = Pairs.load(pairs)
    shift = mean_shift(loaded.text, loaded.video[loaded.labels])
    sampler = DITSAdapter(SamplerConfig(width=32, depth=1)).eval()
    linear = Artifact(shift, loaded.space).save(tmp_path / "linear")
    dits = Artifact(sampler, loaded.space).save(tmp_path / "dits")
    for folder, scale in ((linear, "1"), (dits, "-1"), (dits, "nan"), (dits, "inf")):
        assert main(["gap", str(pairs), str(folder), "--noise", scale, "--out", str(tmp_path / "out")]) == 1
        said = f"noise {scale}: expected a factor of at least 0, and an adapter of kind dits"
        assert said in capsys.readouterr().err
