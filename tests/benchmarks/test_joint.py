"""CLIP trained along, from a dataset's files to the table beside the paper's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import joint, joint_rows, joint_step, paper, run, training_profile
from benchmarks.datasets import DATASETS
from benchmarks.datasets.lookalike import write_lookalike
from benchmarks.joint_rows import OnVectors, rows_of, settings
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import load_pairs
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.training.config import JointRecipe
from dits_adapter.xpool import XPoolScores

SMALL = ["--epochs", "1", "--set", "batch_size=4", "workers=0", "frames=2", "sampler.depth=1", "sampler.steps=2"]


@pytest.fixture(scope="module")
def headline(clips, tiny_clip, tmp_path_factory):
    """Run DITS, and DITS on fixed vectors, on a look-alike of LSMDC: the arguments, and the folder."""
    folder = tmp_path_factory.mktemp("headline")
    write_lookalike("lsmdc", folder / "lsmdc", clips)
    arguments = ["lsmdc", "--root", str(folder / "lsmdc"), "--encoder", str(tiny_clip), "--joint", *SMALL]
    arguments += ["--out", str(folder / "out"), "--only", "dits", "dits-fixed-clip"]
    assert run.main(arguments) == 0
    return arguments, folder / "out" / "joint"


def test_the_headline_by_one_command(headline):
    _, folder = headline
    result = json.loads((folder / "result.json").read_text())
    names = ["identity", "dits", "dits, noise on", "dits-fixed-clip", "dits-fixed-clip, noise on"]
    assert list(dict.fromkeys(row["queries"] for row in result["rows"])) == names == list(result["gaps"])
    trained, test = Artifact.load(folder / "dits"), load_pairs(folder / "vectors" / "dits" / "test")
    assert trained.training["pairs"] == {"train": 40, "validation": 2}  # the dataset's own validation split
    adapted = trained.adapter.for_inference().adapt(test.text)
    of_frames = XPoolScores(trained.xpool, adapted, test.text, 10 * np.asarray(test.frames))
    rows = {row["scorer"]: row["retrieval"] for row in result["rows"] if row["queries"] == "dits"}
    np.testing.assert_array_equal(rows["X-Pool over frames"]["ranks"], ranks(of_frames, test.labels))
    np.testing.assert_array_equal(rows["pooled cosine"]["ranks"], ranks(adapted @ test.video.T, test.labels))
    assert "pooled, top 50 by X-Pool" in rows
    untrained = load_pairs(folder / "vectors" / "untrained" / "test")
    assert untrained.space.video.frames == test.space.video.frames == 2
    written = (folder / "result.md").read_text()
    assert all(f"{name} (quoted from the paper)" in written for name in paper.DATASETS["lsmdc"])
    assert "23.76" not in written  # the gap on MSR-VTT
    assert {"training of dits", "embedding of test, dits", "embedding of test, untrained"} <= result[
        "costs"
    ].keys()


def test_a_second_run_trains_only_what_is_missing(headline, capsys):
    arguments, folder = headline
    before = (folder / "dits" / "adapter.safetensors").stat().st_mtime_ns
    first = json.loads((folder / "result.json").read_text())["rows"]
    assert run.main(arguments) == 0
    assert "joint training" not in capsys.readouterr().err
    assert (folder / "dits" / "adapter.safetensors").stat().st_mtime_ns == before
    assert json.loads((folder / "result.json").read_text())["rows"] == first


def test_a_row_of_another_ablation_with_the_same_recipe_is_not_trained_again(headline, capsys):
    arguments, folder = headline
    only = arguments.index("--only")
    assert run.main([*arguments[:only], "--ablation", "gap", "--only", "dits-v-t"]) == 0
    assert "joint training" not in capsys.readouterr().err
    assert not (folder / "dits-v-t").exists()
    rows = {name: json.loads((folder / f"{name}.json").read_text())["rows"] for name in ("result", "gap")}
    of_dits = [row["retrieval"] for row in rows["result"] if row["queries"] == "dits"]
    assert of_dits == [row["retrieval"] for row in rows["gap"] if row["queries"] == "dits-v-t"]


def test_a_row_of_another_recipe_is_not_taken_for_this_one(headline, capsys):
    arguments, folder = headline
    assert run.main([*arguments, "--seed", "7"]) == 1
    assert f"{folder / 'dits'}: was trained with another recipe than this run has" in capsys.readouterr().err


def test_before_training_it_says_how_long_all_rows_will_take(headline, tmp_path, monkeypatch, capsys):
    """Nothing is trained here: what training needs is an hour a step, two hours with the condition."""
    arguments, _ = headline

    def hours(recipes, *_):
        steps = [3600.0 * (1 + (recipe.sampler["condition"] == "text")) for recipe in recipes]
        return [joint_step.StepCost(step, embed=0, decode=0, process_mib=1, gpu_mib=None) for step in steps]

    monkeypatch.setattr(joint, "measure", hours)

    def stops(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(joint, "train_joint", stops)
    place = arguments.index("--out") + 1
    command = [*arguments[:place], str(tmp_path), "--ablation", "condition"]
    command += ["--only", "dits-condition-none", "dits-condition-text"]
    assert run.main(command) == 130
    said = capsys.readouterr().err
    assert "2 joint trainings of 40 pairs: about 30.0 hours on this machine" in said
    assert "a step of 4 pairs takes 3600.00 s (dits-condition-none) to 7200.00 s (dits-condition-text)" in said


def test_rows_are_measured_by_what_follows_clip(tiny_clip, monkeypatch):
    monkeypatch.setattr(joint_step, "REPEATS", 1)
    recipe = JointRecipe(batch_size=2, frames=2, sampler={"depth": 1})
    paired = recipe.model_copy(update={"batch_size": 2, "sampler": {"condition": "both", "depth": 8}})
    light, heavy = joint_step.measure([recipe, paired], tiny_clip, device="cpu")
    assert light.embed == heavy.embed
    assert heavy.step > light.step > 0


def test_the_estimate_counts_steps_decoding_and_validations():
    recipe = JointRecipe(epochs=2, batch_size=10, workers=4)
    sizes = {"pairs": 105, "videos": 50, "validation": 5, "cores": 2}
    cost = joint_step.StepCost(step=3.0, embed=0.5, decode=0.2, process_mib=1, gpu_mib=None)
    decode = 0.2 / 2
    expected = 20 * 3.0 + 200 * decode + 55 * decode + 4 * 5 * (decode + 0.5)
    assert cost.seconds(recipe, **sizes) == pytest.approx(expected)
    card = joint_step.StepCost(step=3.0, embed=0.5, decode=0.2, process_mib=1, gpu_mib=1000)
    assert card.seconds(recipe, **sizes) == pytest.approx(expected - 200 * decode)


@pytest.mark.parametrize(
    ("name", "rate", "steps", "limit"),
    [
        ("msrvtt", 3e-5, 10, None),
        ("lsmdc", 1e-5, 10, None),
        ("didemo", 1e-5, 5, 31),
        ("vatex", 1e-5, 10, None),
        ("charades", 1e-5, 10, None),
    ],
)
def test_the_settings_are_those_of_the_paper(name, rate, steps, limit):
    recipe = settings(DATASETS[name], {})
    assert (recipe.learning_rate, recipe.clip_learning_rate, recipe.limit) == (rate, 1e-5, limit)
    sampler = recipe.sampler_config(512)
    assert (sampler.steps, sampler.timesteps, sampler.noise_scale, sampler.input) == (steps, 10, 1.0, "raw")
    assert (recipe.epochs, recipe.batch_size, recipe.frames, recipe.select) == (5, 32, 12, "xpool")
    assert settings(DATASETS[name], {"learning_rate": "1"}).learning_rate == 1


@pytest.mark.parametrize("ablation", [None, *joint_rows.ABLATIONS])
def test_every_row_builds_its_adapter(ablation):
    rows = rows_of(ablation, settings(DATASETS["msrvtt"], {"sampler.depth": "1"}))
    for row in rows.values():
        recipe = row.recipe if isinstance(row, OnVectors) else row
        assert recipe.build_adapter(32).width == 32
        assert not isinstance(row, OnVectors) or row.clip in ("", *rows)
    quoted = paper.ABLATIONS.get(ablation, {})
    assert len(rows) >= len(quoted)


def test_a_row_brings_the_one_whose_clip_it_needs():
    recipe = settings(DATASETS["msrvtt"], {})
    assert list(rows_of("prior", recipe, ["diffusion-l1"])) == ["x-pool", "diffusion-l1"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--joint", "--vectors", "DIR"], "--joint trains on video files"),
        (["--joint", "--root", "DIR", "--ablation", "best"], "--ablation best is one without --joint"),
        (["--root", "DIR", "--ablation", "serving"], "--ablation serving is one with --joint"),
        (["--root", "DIR", "--set", "batch_size=4"], "--set belongs to --joint"),
        (["--joint", "--root", "DIR", "--steps", "5"], "--joint takes --set sampler.steps=T'"),
        (["--joint", "--root", "DIR", "--precision", "nonsense"], "argument --precision: invalid choice"),
        (["--joint", "--root", "DIR", "--seed", "1", "--set", "seed=2"], "--seed and --set seed say the same"),
        (["--joint", "--root", "DIR", "--precision", "float32", "--set", "bf16=true"], "say the same thing"),
    ],
)
def test_wrong_usage(more, message, capsys):
    with pytest.raises(SystemExit):
        run.main(["msrvtt", *more])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "nonsense"], "--only nonsense: no such row"),
        (["--set", "batch_size=1"], "batch_size"),
        (["--device", "nonsense"], "the device 'nonsense' cannot be used here"),
    ],
)
def test_a_wrong_value_is_refused_before_clips_are_made(more, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where `demo` would make its clips
    assert run.main(["demo", "--joint", *more]) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_step_at_real_size_is_measured_without_a_model_of_the_hub(tiny_clip, capsys, monkeypatch):
    monkeypatch.setattr(joint_step, "REPEATS", 1)
    assert joint_step.main(["--encoder", str(tiny_clip), "--batch", "2", "--device", "cpu"]) == 0
    assert "a step of 2 pairs of 12 frames: 0." in capsys.readouterr().out


def test_without_a_card_the_script_for_one_says_so(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "CUDA_VISIBLE_DEVICES": ""}
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")  # as torch says it where there is no card
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", script, tmp_path / "report.md"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks/gpu.sh: no CUDA card is visible to torch here")
    assert not (tmp_path / "report.md").exists()
    rehearsal = {**environment, "DEVICE": "cpu"}
    done = subprocess.run(["bash", script, tmp_path / "report.md"], env=rehearsal, capture_output=True, text=True)
    assert "benchmarks.joint_step --device cpu --batch 2 --bf16" in (tmp_path / "report.md").read_text()
    assert done.returncode == 1  # this python runs nothing


def test_with_a_card_the_script_runs_all_of_its_sections_and_says_which_failed(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
    calls = tmp_path / "calls"
    (tmp_path / "python").write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *benchmarks.latency*) exit 3;; esac\n'
    )
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    report = tmp_path / "report.md"
    done = subprocess.run(["bash", script, report], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "## Throughput" in (written := report.read_text())
    assert "exit code 3" in written
    for line in calls.read_text().splitlines()[2:]:  # after the question for a card, and the machine
        _, module, *words = line.split()
        if module != "pytest":
            parser = import_module(module)
            with pytest.raises(SystemExit) as end:
                parser.main([*words, "--help"])
            assert end.value.code == 0
    limits = [int(limit) for limit in re.findall(r'^section "[^"]+" (\d+)', script.read_text(), re.MULTILINE)]
    assert sum(limits) < 600


@pytest.mark.slow
def test_the_profile_of_a_training_step(capsys):
    assert training_profile.main(["--pairs", "300", "--width", "8", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("one epoch of 300 pairs at d = 8")
    assert "aten::addmm" in printed
