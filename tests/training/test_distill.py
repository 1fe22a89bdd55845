"""`dits-adapter distill`: an ordinary artifact of fewer steps, or none where it is worse than its teacher."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

from benchmarks.generated import made_up_space
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training import distill as module
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training._state import TrainingState
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.distill import TRAJECTORY_WEIGHT, distill, student_of, trajectory_objective
from tests.training.test_frozen import SPACE, WIDTH, gap_pairs

pytestmark = pytest.mark.filterwarnings("ignore:the .* test videos fix R@1")


def randomized(**options):
    adapter = DITSAdapter(SamplerConfig(width=WIDTH, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return adapter.eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    file = tmp_path_factory.mktemp("cache") / "pairs.safetensors"
    gap_pairs(500, 2).save(file)
    return file


@pytest.fixture(scope="module")
def teacher(cache):
    out = cache.parent / "teacher"
    settings = ("training.epochs=6", "training.batch_size=64", "training.learning_rate=2e-3", "sampler.depth=2")
    sets = [word for setting in settings for word in ("--set", setting)]
    assert (
        main(
            ["train", str(cache), "--out", str(out), "--test-fraction", "0.2", "--preset", "deterministic", *sets]
        )
        == 0
    )
    return out


def arguments(cache, teacher, out):
    command = ["distill", str(cache), str(teacher), "--out", str(out), "--test-fraction", "0.2"]
    return [*command, "--set", "epochs=8", "--set", "learning_rate=2e-3", "--set", "batch_size=64"]


def run(cache, teacher, out, *extra):
    return main([*arguments(cache, teacher, out), *extra])


@pytest.mark.parametrize(
    ("options", "fields"),
    [([], (1, 2)), (["--steps", "2", "--depth", "1"], (2, 1)), (["--steps", "10", "--mlp-ratio", "1"], (10, 2))],
)
def test_the_student_is_an_ordinary_artifact(cache, teacher, tmp_path, capsys, options, fields):
    assert run(cache, teacher, tmp_path / "student", *options) == 0
    assert f"student, T' = {fields[0]}: R@1" in capsys.readouterr().out
    loaded = Artifact.load(tmp_path / "student")
    assert (loaded.adapter.config.steps, loaded.adapter.config.depth) == fields
    assert loaded.space == SPACE
    assert loaded.training["teacher"]["dits"]["steps"] == 10
    assert loaded.calibration.videos == 40  # its own: its scores are others than the teacher's
    assert loaded.calibration != Artifact.load(teacher).calibration
    test = Pairs.load(cache).split(0.2, 24)[1]
    for adapter, key in ((loaded.adapter, "test"), (Artifact.load(teacher).adapter, "test, teacher")):
        r1 = RetrievalMetrics.from_ranks(evaluate(adapter, test)).r1
        assert loaded.metrics[key]["r1"].startswith(f"{r1:.4g} [")


def test_a_student_learns_its_teachers_ends(cache, teacher):
    master, pairs = Artifact.load(teacher), Pairs.load(cache)
    kept, test = pairs.split(0.2, 24)
    found = distill(
        master,
        kept,
        cache.parent / "close",
        dataset="x",
        test=test,
        training=TrainingConfig(epochs=80),
        progress=False,
    )
    aims = master.adapter.adapt(test.text)

    def distance(adapter):
        return float(np.mean(1 - np.sum(adapter.adapt(test.text) * aims, axis=1)))

    assert distance(found.student.adapter) < 0.5 * distance(student_of(master.adapter, 1))


def test_a_control_learns_from_the_videos_alone(cache, teacher, tmp_path, monkeypatch, capsys):
    """Its weights are those of training by contrast, even where checkpoints of a distillation are left."""
    config = TrainingConfig(epochs=2, batch_size=64)
    master, pairs = Artifact.load(teacher), Pairs.load(cache)

    def student(**options):
        return distill(
            master, pairs, tmp_path / "out", dataset="x", training=config, progress=False, **options
        ).student

    with monkeypatch.context() as patch:
        patch.setattr(module, "paired_bootstrap", dies)  # after the last checkpoint
        with pytest.raises(KeyboardInterrupt):
            student()
    control = student(trajectory_weight=0.0)
    assert control.training["recipe"]["trajectory_weight"] == 0
    kept, validation = pairs.split(0.1, config.seed)[0].split(config.validation, config.seed)
    expected = student_of(master.adapter, 1)
    train(expected, kept, validation, config, progress=False)
    for name, tensor in control.adapter.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-4, atol=1e-6)
    for weight in ("-1", "inf", "nan"):
        assert run(cache, teacher, tmp_path / "no", "--trajectory-weight", weight) == 1
        assert "expected 0 or more" in capsys.readouterr().err


def test_a_student_that_is_worse_is_not_written(cache, teacher, tmp_path, monkeypatch, capsys):
    real = module.train

    def spoiled(adapter, *args, **options):
        history = real(adapter, *args, **options)
        adapter.load_state_dict(randomized(steps=1, depth=2).state_dict())
        return history

    monkeypatch.setattr(module, "train", spoiled)
    assert run(cache, teacher, tmp_path / "student") == 4
    assert "nothing written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def weights(folder):
    return Artifact.load(folder).adapter.state_dict()


def test_stopped_and_repeated_it_ends_with_the_same_weights(cache, teacher, tmp_path, monkeypatch, capsys):
    assert run(cache, teacher, tmp_path / "whole") == 0
    save = TrainingState.save

    def dying(state, path, history):
        save(state, path, history)
        if len(history) == 4:  # the start, and three epochs
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", dying)
        assert run(cache, teacher, tmp_path / "stopped") == 130
    assert not (tmp_path / "stopped").exists()
    capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run(cache, teacher, tmp_path / "stopped") == 0
    assert re.search(r"\b3/8\b", capsys.readouterr().err)  # the bar starts where it was
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "stopped")[name], tensor), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


def test_what_was_learnt_from_another_teacher_is_not_gone_on_with(cache, teacher, tmp_path, monkeypatch):
    pairs, master = Pairs.load(cache), Artifact.load(teacher)
    other = Artifact(randomized(depth=2), SPACE)
    training = TrainingConfig(epochs=2, batch_size=64)

    def student(of, out):
        return distill(of, pairs, tmp_path / out, dataset="x", training=training, progress=False).student

    with monkeypatch.context() as patch:
        patch.setattr(module, "paired_bootstrap", dies)  # after the last checkpoint
        with pytest.raises(KeyboardInterrupt):
            student(other, "out")
    assert [*(tmp_path / "out.checkpoints").iterdir()]
    found, expected = student(master, "out"), student(master, "fresh")
    for name, tensor in expected.adapter.state_dict().items():
        assert torch.equal(found.adapter.state_dict()[name], tensor)


def dies(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("weight", [TRAJECTORY_WEIGHT, 0.3])
def test_the_loss_is_contrast_and_distance_to_the_trajectory(weight):
    teacher, student = randomized(depth=1).double(), randomized(depth=2, steps=2).double()
    rng = torch.Generator().manual_seed(1)
    text, video = (torch.randn(5, WIDTH, generator=rng, dtype=torch.float64) for _ in range(2))
    path, own = teacher.sampler.trajectory(text), student.sampler.trajectory(text)

    def cosine(a, b):
        return (a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)

    logits = 20 * torch.stack([cosine(query, video) for query in own[-1]])
    right = torch.arange(5)
    contrast = -(logits.log_softmax(1)[right, right] + logits.log_softmax(0)[right, right]).mean() / 2
    apart = (1 - cosine(own[1], path[5])).mean() / 2 + (1 - cosine(own[2], path[10])).mean() / 2
    scale = torch.tensor(20.0, dtype=torch.float64)
    loss = trajectory_objective(teacher, weight)(student, text, video, right, scale)
    torch.testing.assert_close(loss, contrast + weight * apart, rtol=1e-5, atol=0)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_a_student_starts_from_its_teachers_weights():
    teacher = randomized(depth=3, start="affine", noise_scale=1.0)
    same, narrow = student_of(teacher, 2), student_of(teacher, 1, depth=2, mlp_ratio=2)
    for name, tensor in same.state_dict().items():
        assert torch.equal(tensor, teacher.state_dict()[name])
    assert same.config.noise_scale == 0
    assert (narrow.config.depth, narrow.config.mlp_ratio, narrow.config.start) == (2, 2, "affine")
    assert torch.equal(narrow.sampler.start.weight, teacher.sampler.start.weight)
    assert narrow.sampler.network.blocks[0].mlp.fc1.out_features == 2 * WIDTH


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (randomized(steps=2), {"steps": 3}, "the teacher takes 2"),
        (randomized(depth=1), {"steps": 10}, "through 101 d × d matrices; a student has to be smaller"),
        (randomized(depth=1), {"steps": 9, "mlp_ratio": 5}, "has to be smaller"),
        (randomized(), {"steps": 0}, "a student of 0 steps"),
        (randomized(), {"steps": 1, "depth": -1}, "depth"),
        (randomized(condition="text"), {"steps": 1}, "conditioned on the text"),
    ],
)
def test_impossible_students_are_refused(teacher, options, message):
    with pytest.raises(InputError, match=message):
        student_of(teacher, **options)


def test_other_adapters_and_spaces_are_refused(cache, tmp_path):
    from dits_adapter.adapters import AffineAdapter, AffineConfig

    pairs = Pairs.load(cache)
    linear = Artifact(AffineAdapter(AffineConfig(width=WIDTH)), SPACE)
    with pytest.raises(InputError, match="kind affine has no steps"):
        distill(linear, pairs, tmp_path / "out", dataset="x")
    elsewhere = made_up_space("elsewhere", WIDTH)
    with pytest.raises(SpaceMismatchError, match="the teacher goes with texts of elsewhere"):
        distill(Artifact(randomized(), elsewhere), pairs, tmp_path / "out", dataset="x")


def test_unknown_fields_are_named(cache, teacher, tmp_path, capsys):
    assert run(cache, teacher, tmp_path / "student", "--set", "typo=1") == 1
    assert "typo" in capsys.readouterr().err
