"""Frozen mode: CLIP and the index stay as they are, and the adapter learns from cached vectors."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import DITSError, InputError, MissingExtraError
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.metrics import RetrievalMetrics, ranks
from dits_adapter.training._losses import Objective, contrast
from dits_adapter.training._memory import keep_freed_memory
from dits_adapter.training._precision import settle_precision
from dits_adapter.training._processes import from_first, is_first, place, share, share_weights
from dits_adapter.training._state import Epoch, TrainingState, best_epoch
from dits_adapter.training._time_limit import out_of_time
from dits_adapter.training.config import TrainingConfig

__all__ = ["evaluate", "summary_writer", "train"]

_MAX_PAIRED_BATCH = 64
"""Largest batch of an adapter that runs on every pair of the batch."""


def evaluate(adapter: Adapter, pairs: Pairs) -> NDArray[Any]:
    """Return the rank of each text's video, (n,), when adapted texts search the pairs' videos by cosine."""
    return ranks(cosine_scores(adapter.for_inference(), pairs.text, pairs.video), pairs.labels)


def train(
    adapter: Adapter,
    pairs: Pairs,
    validation: Pairs,
    config: TrainingConfig,
    *,
    objective: Objective = contrast,
    device: str | torch.device = "auto",
    checkpoints: Path | None = None,
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> list[Epoch]:
    """Train an adapter, with the contrastive loss by default, and leave it with the weights of its best epoch.

    The best epoch is the one with the highest mean reciprocal rank on the validation pairs; the test split plays
    no part. The state before the first epoch takes part as epoch 0: where no epoch is better, the adapter keeps
    its initial weights. Of several learning rates, that of the best epoch is kept. Processes that train together
    share each batch, and end with the same weights.

    Args:
        adapter: a freshly initialized adapter, changed in place.
        pairs: training pairs.
        validation: held-out pairs of other videos.
        config: the recipe.
        objective: the loss of a batch.
        device: a torch device or `"auto"`.
        checkpoints: folder with a file for each learning rate, which is written after every epoch and resumed
            from if it is there; a resumed run ends with the weights of an uninterrupted one.
        log_dir: folder for TensorBoard event files; of several learning rates, each has a folder in it.
        progress: show a progress bar over the epochs.

    Returns:
        All epochs of the learning rate that was kept, the initial state first.

    Raises:
        InputError: an adapter of another width, pairs without two videos, or a batch that several processes cannot
            share evenly.
        DITSError: the loss became NaN or infinite, or the checkpoint belongs to another run.
    """
    if adapter.text_width != pairs.space.text.width:
        raise InputError(f"the adapter has width {adapter.text_width}, the texts {pairs.space.text.width}.")
    if len(np.unique(pairs.labels)) < 2:
        raise InputError("training needs pairs of at least two videos; a contrast needs something else.")
    if adapter.needs_video and config.batch_size > _MAX_PAIRED_BATCH:
        raise InputError(
            f"an adapter that sees the video runs on every pair of a batch, {config.batch_size}² of them; "
            f"set batch_size to at most {_MAX_PAIRED_BATCH}."
        )
    pairs.space.require(validation.space, mine="the training pairs", theirs="the validation pairs")
    device = pick_device(device)
    share(config.batch_size)
    config = from_first(lambda: settle_precision(config, adapter, device))
    share_weights(adapter.to(device))
    initial = _validated(adapter, validation)
    runs = []
    for rate in config.learning_rate:
        run = TrainingState(copy.deepcopy(adapter), pairs, config, rate, objective, device)
        file = None if checkpoints is None else checkpoints / f"{rate:g}.safetensors"
        folder = log_dir if log_dir is None or len(config.learning_rate) == 1 else Path(log_dir) / f"{rate:g}"
        with keep_freed_memory():
            log = summary_writer(folder) if is_first() else None
            history = _epochs(run, initial, validation, file, log, progress)
        runs.append((history, run.best))
    history, weights = max(runs, key=lambda run: best_epoch(run[0]).validation.mrr)
    adapter.load_state_dict(weights)
    adapter.eval()
    return history


def _epochs(
    run: TrainingState,
    initial: RetrievalMetrics,
    validation: Pairs,
    checkpoint: Path | None,
    log: Any,
    progress: bool,
) -> list[Epoch]:
    """Run all epochs at one learning rate, or those that its checkpoint lacks."""
    config = run.config
    history = run.restore(checkpoint) if checkpoint is not None and _is_there(checkpoint) else []
    if not history:
        history = [Epoch(0, math.nan, initial, run.rate)]
    progress = progress and is_first()
    bar = progress_bar(total=config.epochs, initial=len(history) - 1, unit="epoch", progress=progress)
    bar.set_description(f"training {run.adapter.kind} at {run.rate:g}")
    for number in range(len(history), config.epochs + 1):
        best = best_epoch(history)
        if config.patience and number - 1 - best.number >= config.patience:
            break
        if number > 1 and from_first(out_of_time):
            break
        loss = run.epoch(number)
        epoch = Epoch(number, loss, _validated(run.averaged(), validation), run.rate)
        history.append(epoch)
        if epoch.validation.mrr > best.validation.mrr:
            run.keep()
        if checkpoint is not None and is_first():
            run.save(checkpoint, history)
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", val_r1=f"{epoch.validation.r1:.1f}")
        if log is not None:
            log.add_scalar("train/loss", loss, number)
            for name, value in asdict(epoch.validation).items():
                log.add_scalar(f"validation/{name}", value, number)
    bar.close()
    return history


def _validated(adapter: Adapter, validation: Pairs) -> RetrievalMetrics:
    return from_first(lambda: RetrievalMetrics.from_ranks(evaluate(adapter, validation)))


def _is_there(checkpoint: Path) -> bool:
    """Tell whether the first process sees a checkpoint.

    Raises:
        DITSError: it does, and this one does not.
    """
    there = from_first(checkpoint.exists)
    if there and not checkpoint.exists():
        raise DITSError(
            f"{checkpoint}: is not there for process {place()}, but for the first one. The folder of the artifact "
            "has to be one that all machines share."
        )
    return there


def summary_writer(log_dir: str | PathLike[str] | None) -> Any:
    """Open a folder for TensorBoard event files; None where `log_dir` is None.

    Raises:
        MissingExtraError: `tensorboard` is not installed.
    """
    if log_dir is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard", "log_dir") from None
    return SummaryWriter(os.fspath(log_dir))
