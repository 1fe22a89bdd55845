"""Callbacks of joint training: checkpoints by the clock, and the time that all is expected to take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dits_adapter.training.joint import _callbacks
from dits_adapter.training.joint._callbacks import Progress, TimedCheckpoints


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(_callbacks.time, "monotonic", lambda: now[0])
    return now


def saved_after(clock, *, step: float, validation: float, write: float, steps: int) -> list[int]:
    """Return the steps after which a training asks for a checkpoint; it validates after every tenth."""
    callback, asked = TimedCheckpoints(), []
    callback.on_train_begin(None, None, None)
    for number in range(1, steps + 1):
        clock[0] += step
        control = SimpleNamespace(should_save=number % 10 == 0)
        callback.on_step_end(None, None, control)
        if number % 10 == 0:
            clock[0] += validation
            callback.on_evaluate(None, None, control)
        if control.should_save:
            asked.append(number)
            clock[0] += write
            callback.on_save(None, None, control)
    return asked


def test_a_checkpoint_a_minute_beside_those_of_validations(clock):
    # 20 s a step: the fourth one ends more than a minute after the last checkpoint.
    assert saved_after(clock, step=20, validation=0, write=0, steps=19) == [4, 8, 10, 14, 18]


def test_a_validation_is_no_reason_to_save_less_often(clock):
    assert saved_after(clock, step=20, validation=500, write=0, steps=19) == [4, 8, 10, 14, 18]


def test_checkpoints_that_take_long_take_no_more_than_a_twentieth_of_the_time(clock):
    asked = saved_after(clock, step=20, validation=0, write=10, steps=49)
    assert asked == [4, 10, 20, 30, 40]  # 200 s after the one before, if no validation comes first
    asked = saved_after(clock, step=20, validation=0, write=2, steps=9)
    assert asked == [4, 8]


@pytest.mark.parametrize("decided", [True, False])
def test_the_first_process_decides_whose_clock_counts(clock, monkeypatch, decided):
    monkeypatch.setattr(_callbacks, "from_first", lambda _: decided)
    assert saved_after(clock, step=20, validation=0, write=0, steps=5) == [*range(1, 6)] * decided


def progress_of(clock, first: int, seconds: list[float], *, every: int = 20, validation: float) -> None:
    callback = Progress(True, validation=validation)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=100, global_step=first)
    args = SimpleNamespace(eval_steps=every)
    callback.on_train_begin(args, state, None)
    for step in seconds:
        clock[0] += step
        state.global_step += 1
        callback.on_step_end(args, state, None)
    callback.on_train_end(args, state, None)


def test_the_time_of_all_is_said_once_without_the_first_step_which_starts_processes(clock, capsys):
    progress_of(clock, 0, [9, 2, 2, 2, 2, 2, 50], validation=10)
    # 100 steps of 2 s, five validations and one of the kept checkpoint
    assert capsys.readouterr().err == "100 steps and 6 validations take about 4 min here.\n"


def test_the_time_of_slow_steps_is_said_after_the_second_one(clock, capsys):
    progress_of(clock, 0, [100, 60], validation=0)
    assert capsys.readouterr().err == "100 steps and 6 validations take about 1.7 h here.\n"


def test_the_last_step_is_validated_too(clock, capsys):
    progress_of(clock, 30, [31, 6], every=30, validation=0)
    assert "70 steps and 4 validations" in capsys.readouterr().err  # after 60, 90 and 100, and of the kept one


def test_a_resumed_training_says_what_is_left(clock, capsys):
    progress_of(clock, 50, [31, 6], validation=0)
    said = "Goes on after step 50 of 100.\n50 steps and 4 validations take about 5 min here.\n"
    assert capsys.readouterr().err == said


def test_a_training_of_one_step_says_nothing(clock, capsys):
    progress_of(clock, 99, [31], validation=0)
    assert capsys.readouterr().err == "Goes on after step 99 of 100.\n"
