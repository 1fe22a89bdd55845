"""Frozen mode: CLIP stays as it is, the adapter learns from cached vectors, the index is not touched."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from dits_adapter.adapters import (
    Adapter,
    DiffusionAdapter,
)
from dits_adapter.adapters.base import cosines
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import DITSError, InputError, MissingExtraError
from dits_adapter.evaluation.metrics import RetrievalMetrics, ranks
from dits_adapter.training.batches import Batches
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.losses import contrastive_loss

MAX_PAIRED_BATCH = 64

MAX_LOGIT_SCALE = 100.0
"""CLIP's own limit on 1 / temperature."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1; 0 is the state before training.
        loss: mean over the training batches; NaN for epoch 0.
        validation: retrieval on the held-out pairs.
        learning_rate: peak learning rate of the run that the epoch belongs to.
    """

    number: int
    loss: float
    validation: RetrievalMetrics
    learning_rate: float


def evaluate(adapter: Adapter, pairs: Pairs) -> np.ndarray:
    """Return the rank of each text's video, (n,), when adapted texts search the pairs' videos by cosine."""
    return ranks(adapter.for_inference().scores(pairs.text, pairs.video), pairs.labels)


Objective = Callable[[Adapter, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(adapter, text (b, d), their videos (b, d), numbers of the videos (b,), 1 / temperature) -> loss"""


def contrast(adapter: Adapter, text: Tensor, video: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
    """The contrastive loss of adapted texts and videos."""
    queries = adapter.towards(text, video)
    with torch.autocast(text.device.type, enabled=False):
        return contrastive_loss(cosines(queries, video), logit_scale, labels)


def gap_loss(adapter: Adapter, text: Tensor, video: Tensor, *_: Tensor) -> Tensor:
    """What diffusion learns before it is fine-tuned."""
    return cast(DiffusionAdapter, adapter).gap_loss(text, video)


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
    its initial weights. Of several learning rates, the one with the best epoch is kept.

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
        InputError: an adapter of another width, or pairs without two videos.
        DITSError: the loss became NaN or infinite, or the checkpoint belongs to another run.
    """
    if adapter.width != pairs.space.width:
        raise InputError(f"the adapter has width {adapter.width}, the pairs {pairs.space.width}.")
    if len(np.unique(pairs.labels)) < 2:
        raise InputError("training needs pairs of at least two videos; a contrast needs something else.")
    if adapter.needs_video and config.batch_size > MAX_PAIRED_BATCH:
        raise InputError(
            f"an adapter that sees the video runs on every pair of a batch, {config.batch_size}² of them; "
            f"set batch_size to at most {MAX_PAIRED_BATCH}."
        )
    pairs.space.require(validation.space, mine="the training pairs", theirs="the validation pairs")
    adapter.to(pick_device(device))
    initial = RetrievalMetrics.from_ranks(evaluate(adapter, validation))
    runs = []
    for rate in config.learning_rate:
        run = TrainingState(copy.deepcopy(adapter), pairs, config, rate, objective, pick_device(device))
        file = None if checkpoints is None else checkpoints / f"{rate:g}.safetensors"
        folder = log_dir if log_dir is None or len(config.learning_rate) == 1 else Path(log_dir) / f"{rate:g}"
        runs.append((_epochs(run, initial, validation, file, summary_writer(folder), progress), run.best))
    history, weights = max(runs, key=lambda run: best_epoch(run[0]).validation.mrr)
    adapter.load_state_dict(weights)
    adapter.eval()
    return history


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch whose weights are kept: the first with the highest mean reciprocal rank."""
    return max(history, key=lambda epoch: epoch.validation.mrr)


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
    history = run.restore(checkpoint) if checkpoint is not None and checkpoint.exists() else []
    if not history:
        history = [Epoch(0, math.nan, initial, run.rate)]
    bar = tqdm(total=config.epochs, initial=len(history) - 1, unit="epoch", disable=not progress)
    bar.set_description(f"training {run.adapter.kind} at {run.rate:g}")
    for number in range(len(history), config.epochs + 1):
        best = best_epoch(history)
        if config.patience and number - 1 - best.number >= config.patience:
            break
        loss = run.epoch(number)
        found = RetrievalMetrics.from_ranks(evaluate(run.averaged(), validation))
        epoch = Epoch(number, loss, found, run.rate)
        history.append(epoch)
        if epoch.validation.mrr > best.validation.mrr:
            run.keep()
        if checkpoint is not None:
            run.save(checkpoint, history)
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", val_r1=f"{epoch.validation.r1:.1f}")
        if log is not None:
            log.add_scalar("train/loss", loss, number)
            for name, value in asdict(epoch.validation).items():
                log.add_scalar(f"validation/{name}", value, number)
    bar.close()
    return history


def summary_writer(log_dir: str | PathLike[str] | None) -> Any:
    """Open a folder for TensorBoard event files; None for none.

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


class TrainingState:
    """State of one training run: adapter, moving average, optimizer, best weights."""

    def __init__(
        self,
        adapter: Adapter,
        pairs: Pairs,
        config: TrainingConfig,
        rate: float,
        objective: Objective,
        device: torch.device,
    ) -> None:
        self.adapter, self.config, self.rate, self.device = adapter.to(device), config, rate, device
        self.objective = objective
        self.text, self.video, self.labels = pairs.tensors(device)
        self.batches = Batches(self.labels, self.video, config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))
        matrices = [p for p in adapter.parameters() if p.ndim > 1]
        others = [p for p in adapter.parameters() if p.ndim <= 1] + [self.logit_scale]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=rate,
        )
        self.average = (
            AveragedModel(adapter, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        )
        self.best = self._weights()

    def averaged(self) -> Adapter:
        """Return the adapter that is evaluated and kept: the moving average, or the adapter itself."""
        return self.adapter if self.average is None else cast(Adapter, self.average.module)

    def _weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.averaged().state_dict())

    def keep(self) -> None:
        """Remember the present weights as the best."""
        self.best = self._weights()

    def epoch(self, number: int) -> float:
        """Run one epoch and return its mean loss."""
        config, steps = self.config, self.config.epochs * self.batches.count
        warmup = max(1, round(config.warmup * steps))
        self.adapter.noise = torch.Generator(self.device).manual_seed(config.seed * 100_003 + number)
        # Dropout draws from the global generator: from a state that the epoch decides, and restored afterwards.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(config.seed * 100_003 + number)
            return self._epoch(number, steps, warmup)

    def _epoch(self, number: int, steps: int, warmup: int) -> float:
        config = self.config
        self.adapter.train()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(self.batches.epoch(number)):
            step = (number - 1) * self.batches.count + index
            decay = (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))) / 2
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * min((step + 1) / warmup, decay)
            rows = batch.to(self.device)
            self.optimizer.zero_grad()
            labels = self.labels[rows]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
                loss = self.objective(
                    self.adapter, self.text[rows], self.video[labels], labels, self.logit_scale.exp()
                )
            loss.backward()
            nn.utils.clip_grad_norm_([*self.adapter.parameters(), self.logit_scale], config.gradient_norm)
            self.optimizer.step()
            with torch.no_grad():
                self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            if self.average is not None:
                self.average.update_parameters(self.adapter)
            total += loss.detach()
        self.adapter.eval()
        mean = float(total) / self.batches.count
        if not math.isfinite(mean):
            raise DITSError(f"the loss became {mean} in epoch {number}; lower learning_rate or noise_scale.")
        return mean

    def _identity(self) -> str:
        """What a checkpoint must share with the run that resumes from it."""
        data = [len(self.text), len(self.video), float(self.text.sum()), float(self.video.sum())]
        recipe = {**self.config.model_dump(mode="json"), "learning_rate": self.rate}
        return json.dumps([self.adapter.config.model_dump(mode="json"), recipe, data])

    def save(self, path: Path, history: list[Epoch]) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {"logit_scale": self.logit_scale.detach()}
        models = {"adapter": self.adapter, "average": self.average}
        for name, model in models.items():
            if model is not None:
                tensors |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"best/{key}": value for key, value in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
        metadata = {"run": self._identity(), "history": json.dumps([asdict(epoch) for epoch in history])}
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.part")
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, scratch, metadata)
        os.replace(scratch, path)

    def restore(self, path: Path) -> list[Epoch]:
        """Go on from a checkpoint; returns the epochs that it has behind it."""
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DITSError(f"{path}: is no intact checkpoint ({error}). Remove it to start anew.") from None
        if metadata.get("run") != self._identity():
            raise DITSError(
                f"{path}: belongs to a run with other data, another adapter or another recipe. "
                "Remove it to start anew, or name another checkpoint."
            )

        def part(name: str) -> dict[str, Tensor]:
            return {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}

        self.adapter.load_state_dict(part("adapter"))
        if self.average is not None:
            self.average.load_state_dict(part("average"))
        self.best = part("best")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer").items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        with torch.no_grad():
            self.logit_scale.copy_(tensors["logit_scale"])
        return [
            Epoch(e["number"], e["loss"], RetrievalMetrics(**e["validation"]), self.rate)
            for e in json.loads(metadata["history"])
        ]
