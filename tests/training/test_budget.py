"""Time that a comparison expects to take, and rows that a budget leaves out."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from dits_adapter.adapters import fresh_adapter
from dits_adapter.cli import main
from dits_adapter.cli._options import seconds_of
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.tasks.compare import _epochs
from dits_adapter.training import _estimate
from dits_adapter.training._estimate import Plan, plan
from dits_adapter.training._loop import train
from dits_adapter.training._time_limit import time_limit
from dits_adapter.training.compare import fit_all
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.rows import all_rows
from dits_adapter.vectors import unit
from tests.spaces import made_up_space

WIDTH = 8


def made_up(videos: int) -> Pairs:
    rng = np.random.default_rng(0)
    video = rng.normal(size=(videos, WIDTH))
    text = video + rng.normal(size=(videos, WIDTH))
    return Pairs(text.astype("float32"), unit(video), np.arange(videos), made_up_space(WIDTH))


@pytest.fixture
def clock(monkeypatch):
    """A clock that fits move: a step of a trained adapter takes a second, any other fit three."""
    now = [0.0]

    def fit(recipe, pairs, validation, **_):
        epochs, rates = recipe.training.epochs, len(recipe.training.learning_rate)
        now[0] += rates * epochs if recipe.adapter in ("mlp", "dits") else 3
        return None, []

    def still(action):
        action()
        return 0.0

    monkeypatch.setattr(_estimate, "fit", fit)
    monkeypatch.setattr(_estimate, "_seconds", still)
    for name in ("perf_counter", "thread_time"):
        monkeypatch.setattr(_estimate.time, name, lambda: now[0])
    return now


@pytest.fixture(scope="module")
def split() -> tuple[Pairs, Pairs, Pairs]:
    rest, test = made_up(3000).split(0.2, 0)
    return (*rest.split(0.1, 0), test)


ROWS = all_rows((1,), TrainingConfig(epochs=10, learning_rate=(1e-4, 1e-3)))


@pytest.mark.usefixtures("clock")
def test_a_training_takes_its_steps_and_its_validations(split):
    seconds = plan({"identity": ROWS["identity"], "mlp-1": ROWS["mlp-1"]}, [split]).seconds
    steps, validating = 2160 // 256, 240 / 256 / 3  # a forward pass is a third of a step
    step = 1 / (1 + 1 / 3)  # of an epoch of 256 pairs, which are the validation pairs, too
    assert seconds["mlp-1"] == pytest.approx(1 + 2 * 10 * (steps + validating) * step)


@pytest.mark.usefixtures("clock")
def test_rows_of_one_fit_pay_once_and_folds_pay_each(split):
    names = ("identity", "gentle-mlp", "gentle-mlp-bank", "gentle-mlp-bias")
    rows = {name: ROWS[name] for name in names}
    assert plan(rows, [split]).seconds == {
        "identity": 3,
        "gentle-mlp": 12,
        "gentle-mlp-bank": 0,
        "gentle-mlp-bias": 0,
    }
    assert plan(rows, [split] * 5).seconds["gentle-mlp"] == 60


TRIALS = 1 + 3 * 3 + 2 * (1 + 3)
"""Seconds of a first training, of three fits at once, and of two trainings for one epoch and for three."""


@pytest.mark.usefixtures("clock")
def test_cheap_rows_fill_the_budget_and_the_others_are_named(split):
    names = ("dits-best", "gentle-linear", "mlp-1", "identity", "ridge")
    rows = {name: ROWS[name] for name in names}
    planned = plan(rows, [split], budget=20 + TRIALS)
    assert list(planned.rows) == ["gentle-linear", "identity", "ridge"]  # in the order of the table
    assert sum(planned.seconds.values()) == 18
    assert list(plan(rows, [split], budget=17 + TRIALS).rows) == ["identity", "ridge"]
    assert list(planned.left_out) == ["dits-best", "mlp-1"]
    assert "Left out for want of time: dits-best (2 min), mlp-1 (2 min)." in str(planned)
    assert list(plan(rows, [split], budget=TRIALS - 4).rows) == ["identity", "ridge"]  # trials get half at most
    assert list(plan(rows, [split], budget=0.1).rows) == ["identity"]
    assert planned.limits == {"identity": 6, "ridge": 6, "gentle-linear": 24}
    assert not plan(rows, [split]).left_out


@pytest.mark.usefixtures("clock")
def test_a_budget_for_one_fit_goes_to_the_one_of_most_rows(split):
    shared = ("gentle-mlp", "gentle-mlp-bank", "gentle-mlp-bias")
    rows = {name: ROWS[name] for name in ("identity", "gentle-linear", *shared)}
    planned = plan(rows, [split], budget=3 + 12 + 3 * 3)
    assert list(planned.rows) == ["identity", *shared]
    assert planned.left_out == {"gentle-linear": 12}


@pytest.mark.usefixtures("clock")
def test_a_row_may_take_twice_its_time_or_a_twentieth_of_the_budget(split):
    rows = {name: ROWS[name] for name in ("identity", "ridge")}
    assert plan(rows, [split], budget=400).limits == {"identity": 20, "ridge": 20}
    assert plan(rows, [split]).limits == {}


def test_a_training_out_of_time_ends_with_its_epoch_and_is_not_kept(split, tmp_path):
    rows = {name: ROWS[name] for name in ("identity", "contrastive-linear")}
    limits = {"identity": 0.0, "contrastive-linear": 0.0}
    with pytest.warns(UserWarning, match="contrastive-linear: took much longer than expected, and its training"):
        adapters = fit_all(rows, *split[:2], out=tmp_path, limits=limits, progress=False)
    assert adapters.keys() == rows.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]


def test_a_row_that_shares_a_stopped_fit_is_not_kept_either(split, tmp_path):
    of_bank = Recipe(adapter="contrastive-linear", training=TrainingConfig(epochs=2, learning_rate=(1e-3,)))
    rows = {use: of_bank.model_copy(update={"bank": use}) for use in ("queries", "scores")}
    with pytest.warns(UserWarning, match="took much longer than expected") as said:
        fit_all(rows, *split[:2], out=tmp_path, limits={"queries": 0.0}, progress=False)
    assert len(said) == 2
    assert not [*tmp_path.iterdir()]
    fit_all(rows, *made_up(400).split(0.2, 1), out=tmp_path, limits={"queries": 60.0}, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"queries", "scores"}


def test_a_limit_holds_for_all_trainings_of_a_fit_together(split):
    config = TrainingConfig(epochs=3, learning_rate=(1e-3,))

    def epochs() -> int:
        torch.manual_seed(0)
        return len(train(fresh_adapter("mlp", WIDTH), *split[:2], config, progress=False)) - 1

    with time_limit(0) as limit:
        assert not limit.reached
        assert [epochs(), epochs()] == [1, 1]
        assert limit.reached
    with time_limit(60) as limit:
        assert epochs() == 3
    assert not limit.reached
    assert epochs() == 3


def test_a_plan_of_real_fits_changes_no_random_state_and_counts_kept_rows_as_free(split, tmp_path):
    rows = {name: ROWS[name] for name in ("identity", "ridge")}
    fit_all(rows, *split[:2], out=tmp_path, progress=False)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    planned = plan({**rows, "procrustes": ROWS["procrustes"]}, [split], out=tmp_path)
    assert torch.rand(1) == expected
    assert planned.seconds["ridge"] < planned.seconds["procrustes"]


def test_the_plan_of_one_row_says_so():
    rows = {"ridge": ROWS["ridge"]}
    assert re.fullmatch(r"1 row takes about [^;]* here, or less\.", str(Plan(rows, {"ridge": 2.0}, {}, {})))


def test_rows_that_refuse_a_trial_are_tried_on_all_pairs(split):
    train, validation, test = split
    same = np.tile(train.video[:1], (1000, 1))  # most of what a trial draws
    video = np.concatenate([same, train.video[1000:1012]])
    pairs = Pairs(train.text[:1012], video, np.arange(1012), train.space)
    rows = {name: ROWS[name] for name in ("identity", "gentle-linear")}
    assert list(plan(rows, [(pairs, validation, test)]).rows) == list(rows)


def test_the_command_says_how_long_and_what_is_left_out(tmp_path, capsys):
    made_up(120).save(tmp_path / "pairs")
    command = ["compare", str(tmp_path / "pairs"), "--rows", "ridge", "dits-best", "--steps", "1", "--json"]
    assert main([*command, "--epochs", "10000000", "--budget", "1h"]) == 0
    captured = capsys.readouterr()
    assert "2 rows take about" in captured.err
    assert "Left out for want of time: dits-best" in captured.err
    comparison = json.loads(captured.out)
    assert [row["name"] for row in comparison["rows"]] == ["identity", "ridge"]
    assert comparison["left_out"].keys() == {"dits-best"}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_times(text, seconds):
    assert seconds_of("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0s", "infh", "nanm", "5 minutes"])
def test_what_is_no_time_is_refused(text, capsys):
    with pytest.raises(InputError, match="is no time; write 90s, 30m or 2h"):
        seconds_of("--budget", text)
    assert main(["compare", "no-such-cache", f"--budget={text}"]) == 1
    assert "is no time" in capsys.readouterr().err


def test_of_many_pairs_fewer_epochs_are_the_default():
    assert [_epochs(steps) for steps in (0, 16, 100, 195, 3_906)] == [30, 30, 30, 15, 3]
