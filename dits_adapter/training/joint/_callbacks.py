"""Callbacks of the Trainer: limits of the loss, progress with the expected time, checkpoints, event files."""

from __future__ import annotations

import math
import sys
import time
from os import PathLike
from typing import Any

import torch
from transformers import TrainerCallback

from dits_adapter._progress import progress_bar
from dits_adapter._wording import counted
from dits_adapter.errors import DITSError
from dits_adapter.evaluation._tables import duration
from dits_adapter.training._loop import summary_writer
from dits_adapter.training._processes import from_first
from dits_adapter.training._state import MAX_LOGIT_SCALE

__all__ = ["LossWatch", "Progress", "TimedCheckpoints", "loggers"]

_TRIED, _TRIED_SECONDS = 5, 30.0
"""Steps after the first one, or seconds, after which the time of all is said."""

_PAUSE = 60.0
"""Seconds between two checkpoints, at least."""

_SHARE = 0.05
"""Share of the time that goes into writing checkpoints, at most."""


class LossWatch(TrainerCallback):
    """Callback that keeps CLIP's temperature in its limits and stops where the loss is no number."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clamp the logit scale."""
        with torch.no_grad():
            kwargs["model"].clip.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise a `DITSError` where the loss is NaN or infinite."""
        loss = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise DITSError(
                f"the loss became {loss} before step {state.global_step}; lower the learning rates or "
                "sampler.noise_scale."
            )


class Progress(TrainerCallback):
    """Callback that shows the steps and the last loss, and says after the first steps how long all will take.

    The callbacks of transformers print their log to stdout.

    Args:
        progress: show a progress bar on a terminal, and write the expected time to stderr, in the first process.
        validation: seconds that a validation takes.
    """

    def __init__(self, progress: bool, validation: float) -> None:
        self._progress, self._validation = progress, validation
        self._bar = progress_bar(progress=False)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the bar, and name the step that a resumed training goes on from."""
        self._progress &= state.is_world_process_zero
        self._start, steps = state.global_step, state.max_steps
        self._bar = progress_bar(
            total=steps, initial=self._start, desc="joint training", unit="step", progress=self._progress
        )
        self._ends = [_now()]
        self._told = not self._progress
        if self._progress and self._start:
            self._say(f"Goes on after step {self._start:,} of {steps:,}.")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step, and write the expected time once it is known."""
        self._bar.update()
        if self._told:
            return
        self._ends.append(_now())
        tried = len(self._ends) - 2  # steps after the first one, which starts processes
        if tried == _TRIED or (tried > 0 and self._ends[-1] - self._ends[0] > _TRIED_SECONDS):
            steps = state.max_steps - self._start
            validations = -(-state.max_steps // args.eval_steps) - self._start // args.eval_steps + 1
            seconds = steps * (self._ends[-1] - self._ends[1]) / tried + validations * self._validation
            work = f"{counted(steps, 'step')} and {counted(validations, 'validation')}"
            self._say(f"{work} take about {duration(seconds)} here.")
            self._told = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the last loss behind the bar."""
        if "loss" in kwargs["logs"]:
            self._bar.set_postfix(loss=f"{kwargs['logs']['loss']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._bar.close()

    def _say(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)


def _now() -> float:
    """Return the time, once the work that was given to a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


class TimedCheckpoints(TrainerCallback):
    """Callback that saves a checkpoint a minute, beside those of the validations.

    Where the writing of one takes long, as of a large CLIP, checkpoints come less often, so that no more than a
    twentieth of the time goes into them. The first process decides for all.
    """

    def __init__(self) -> None:
        self._pause = _PAUSE
        self._saved = self._begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where the last one is old."""
        self._begun = time.monotonic()
        if from_first(lambda: self._begun - self._saved > self._pause):
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the time of the validation out of that of writing."""
        self._begun = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Settle when the next one is due."""
        self._saved = time.monotonic()
        self._pause = max(_PAUSE, (self._saved - self._begun) / _SHARE)


def loggers(log_dir: str | PathLike[str] | None) -> list[TrainerCallback]:
    """Return the callbacks that write TensorBoard event files into a folder; none without one."""
    if log_dir is None:
        return []
    from transformers.integrations.integration_utils import TensorBoardCallback

    return [TensorBoardCallback(summary_writer(log_dir))]
