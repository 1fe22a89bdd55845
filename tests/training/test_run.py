"""`dits-adapter train`, from cached pairs to an artifact, as a user runs it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs, held_out
from dits_adapter.errors import ArtifactError, InputError, SpaceMismatchError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training import distill
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training._loop import evaluate
from dits_adapter.training.config import Recipe
from dits_adapter.training.run import calibrate, fit, train_artifact
from tests.crash import kill_between_the_renames
from tests.training.test_frozen import ELSEWHERE, SPACE, WIDTH, gap_pairs

pytestmark = pytest.mark.filterwarnings("ignore:the .* test videos fix R@1")
QUICK = {
    "training.epochs": "4",
    "training.batch_size": "64",
    "training.learning_rate": "2e-3",
    "sampler.depth": "1",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    file = tmp_path_factory.mktemp("cache") / "pairs.safetensors"
    gap_pairs(500, 2).save(file)
    return file


def run(cache, out, *extra, **settings):
    given = [f"{name}={value}" for name, value in {**QUICK, **settings}.items()]
    sets = [word for setting in given for word in ("--set", setting)]
    return main(["train", str(cache), "--out", str(out), "--test-fraction", "0.2", *sets, *extra])


def test_writes_an_artifact_that_says_what_it_is(cache, tmp_path, capsys):
    curve = tmp_path / "curve.png"
    assert run(cache, tmp_path / "adapter", "--curve", str(curve)) == 0
    printed = capsys.readouterr().out
    assert "against plain CLIP" in printed
    loaded = Artifact.load(tmp_path / "adapter")
    assert loaded.training["dataset"] == "pairs.safetensors"
    assert loaded.training["videos"] == {"train": 360, "validation": 40, "test": 100}
    assert loaded.metrics["test"]["queries"] == 200
    assert loaded.training["precision"] == "float32"  # 16 dimensions are too few for units of bfloat16
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "curve.png"]  # no checkpoint left


@pytest.mark.parametrize("progress", [True, False])
def test_the_start_of_an_adapter_shows_its_progress_too(cache, caplog, progress):
    """It is a training of its own, of the linear map, at as many rates."""
    caplog.set_level("INFO")
    pairs, validation = Pairs.load(cache).split(0.2, 24)
    recipe = Recipe.read("best", settings={"training.epochs": "1", "training.learning_rate": "2e-3"})
    fit(recipe, pairs, validation, progress=progress)
    shown = {record.getMessage().partition(":")[0] for record in caplog.records}
    expected = {*(f"training affine at {rate:g}" for rate in LEARNING_RATES), "training dits at 0.002"}
    assert shown & expected == (expected if progress else set())


def test_a_student_is_recommended_with_the_times_of_both(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distill, "query_milliseconds", lambda adapter: adapter.config.matrices)
    one = {"training.epochs": "1"}
    assert run(cache, tmp_path / "a", "--preset", "large", **one, **{"training.seed": "3"}) == 0
    out = tmp_path / "a"
    printed = capsys.readouterr().out
    assert "takes 102.0 ms a query here. A student takes 42.0 ms" in printed
    recommended = f"dits-adapter distill {cache} {out} --out {out}-small --steps 10 --depth 1 --mlp-ratio 1"
    assert f"{recommended} --test-fraction 0.2 --set seed=3\n" in printed  # the same videos are held out
    for settings in (one, {"adapter": "ridge"}):
        assert run(cache, tmp_path / "b", **settings) == 0  # small as it is by default
        assert "dits-adapter distill" not in capsys.readouterr().out


def test_probabilities_are_calibrated_on_the_pairs_that_chose_the_epoch(cache, tmp_path):
    run(cache, tmp_path / "adapter")
    loaded = Artifact.load(tmp_path / "adapter")
    validation = Pairs.load(cache).split(0.2, 24)[0].split(0.1, 24)[1]
    expected = calibrate(loaded.adapter, validation)
    for found, wanted in ((loaded.calibration, expected), (loaded.calibration.answer, expected.answer)):
        numbers = found.model_dump(exclude={"answer", "biased"})
        assert numbers == pytest.approx(wanted.model_dump(exclude={"answer", "biased"}), rel=1e-6)
    assert (loaded.calibration.videos, loaded.calibration.queries) == (40, 80)
    pairs = Pairs.load(cache)
    with pytest.warns(UserWarning, match="the others are taken"):
        part = held_out(pairs, loaded.training)
    np.testing.assert_array_equal(part.video, pairs.split(0.2, 24)[1].video)


def test_few_validation_videos_are_said_and_give_no_probabilities(tmp_path, capsys):
    gap_pairs(120, 2).save(tmp_path / "few.safetensors")
    with pytest.warns(UserWarning, match="gets no probabilities: 10 held-out videos are too few"):
        assert run(tmp_path / "few.safetensors", tmp_path / "adapter", "--json", adapter="ridge") == 0
    few, none = json.loads(capsys.readouterr().out)["warnings"]
    assert few.startswith("the 24 test videos fix R@1 to about")
    assert none.startswith("the adapter gets no probabilities: 10 held-out videos are too few")
    assert Artifact.load(tmp_path / "adapter").calibration is None


def test_an_adapter_that_needs_the_video_gets_no_probabilities():
    config = SamplerConfig(width=WIDTH, depth=1, condition="both")
    assert calibrate(DITSAdapter(config).eval(), gap_pairs(60, 2)) is None


def test_the_recorded_figures_are_those_of_the_saved_weights(cache, tmp_path):
    run(cache, tmp_path / "adapter")
    loaded = Artifact.load(tmp_path / "adapter")
    test = Pairs.load(cache).split(0.2, 24)[1]
    r1 = RetrievalMetrics.from_ranks(evaluate(loaded.adapter, test)).r1
    assert loaded.metrics["test"]["r1"].startswith(f"{r1:.4g} [")


@pytest.mark.parametrize("name", ["mean-shift", "procrustes", "ridge", "contrastive-linear", "mlp"])
def test_every_adapter_comes_from_the_same_command(name, cache, tmp_path):
    assert run(cache, tmp_path / name, **{"adapter": name}) == 0
    assert Artifact.load(tmp_path / name).training["recipe"]["adapter"] == name


class TestPromotion:
    def test_better_than_plain_clip_is_written(self, cache, tmp_path):
        assert run(cache, tmp_path / "a", "--promote-if-better") == 0
        assert Artifact.load(tmp_path / "a").adapter.kind == "dits"

    def test_no_better_than_the_incumbent_is_not(self, cache, tmp_path, capsys):
        run(cache, tmp_path / "a")
        before = (tmp_path / "a" / "adapter.safetensors").read_bytes()
        assert run(cache, tmp_path / "a", "--promote-if-better") == 4
        assert "nothing written" in capsys.readouterr().out
        assert (tmp_path / "a" / "adapter.safetensors").read_bytes() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_an_incumbent_whose_save_was_killed_is_the_one_to_beat(self, cache, tmp_path, capsys):
        run(cache, tmp_path / "a")
        incumbent = Artifact.load(tmp_path / "a")
        kill_between_the_renames(lambda: incumbent.save(tmp_path / "a"), tmp_path / "a")
        assert run(cache, tmp_path / "a", "--promote-if-better") == 4
        assert f"not better than {tmp_path / 'a'}" in capsys.readouterr().out
        assert (tmp_path / "a" / "adapter.safetensors").exists()

    def test_without_a_gap_plain_clip_stays(self, tmp_path):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(300, WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        Pairs(vectors, vectors, np.arange(300), SPACE).save(tmp_path / "same.safetensors")
        assert run(tmp_path / "same.safetensors", tmp_path / "a", "--promote-if-better") == 4
        assert not (tmp_path / "a").exists()


def test_small_test_splits_are_warned_about(cache, tmp_path):
    with pytest.warns(UserWarning, match=r"the 100 test videos fix R@1 to about ± 10 points"):
        run(cache, tmp_path / "a", **{"adapter": "mean-shift"})


def test_each_is_at_least_what_it_starts_from_on_validation():
    pairs, validation = gap_pairs(300).split(0.2, seed=0)

    def mrr(name, **settings):
        recipe = Recipe.read("deterministic", settings={**QUICK, "adapter": name, **settings})
        adapter, history = fit(recipe, pairs, validation, progress=False)
        found = RetrievalMetrics.from_ranks(evaluate(adapter, validation)).mrr
        return found, history[0].validation.mrr if history else found

    closed = max(mrr(name)[0] for name in ("identity", "mean-shift", "procrustes", "ridge"))
    linear, start = mrr("contrastive-linear", **{"training.learning_rate": str(list(LEARNING_RATES))})
    assert start == closed
    assert linear >= closed
    for name, setting in (("dits", "sampler.start"), ("mlp", "options.start")):
        network, start = mrr(name, **{setting: "affine"})
        assert start == pytest.approx(linear)
        assert network >= linear


def test_what_is_refused(cache, tmp_path, capsys):
    assert run(cache, tmp_path / "a", "--preset", "magic") == 1
    assert "there are paper, deterministic" in capsys.readouterr().err
    assert run(tmp_path / "none", tmp_path / "a") == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["train", str(cache), "--out", str(tmp_path / "a"), "--set", "epochs"]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="not empty"):
        train_artifact(Pairs.load(cache), Recipe(adapter="mean-shift"), tmp_path / "full", dataset="x")
    other = gap_pairs(40)
    other = Pairs(other.text, other.video, other.labels, ELSEWHERE)
    with pytest.raises(SpaceMismatchError, match="the training pairs"):
        train_artifact(Pairs.load(cache), Recipe(adapter="mean-shift"), tmp_path / "b", dataset="x", test=other)


def test_a_raw_sampler_is_not_trained_on_normalized_texts(tmp_path):
    pairs = gap_pairs(40)
    norms = np.linalg.norm(pairs.text, axis=1, keepdims=True)
    flat = Pairs(pairs.text / norms, pairs.video, pairs.labels, SPACE)
    with pytest.raises(InputError, match=r"unit norm.*sampler\.input=unit"):
        train_artifact(flat, Recipe.read("paper"), tmp_path / "a", dataset="x")
    settings = {**QUICK, "sampler.input": "unit", "training.epochs": "1"}
    assert train_artifact(flat, Recipe.read("paper", settings=settings), tmp_path / "a", dataset="x").written


def test_tensorboard_files(cache, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    run(cache, tmp_path / "a", "--log-dir", str(tmp_path / "log"))
    assert any(path.name.startswith("events") for path in (tmp_path / "log").iterdir())
    json.loads((tmp_path / "a" / "config.json").read_text())
