"""State of one training run: weights, optimizer, moving average, best epoch, and its checkpoint."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dits_adapter._files import write_atomically
from dits_adapter.adapters import Adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import DITSError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.training._batches import Batches, blocks
from dits_adapter.training._losses import Objective
from dits_adapter.training._processes import average_gradients, place
from dits_adapter.training.config import TrainingConfig

__all__ = ["MAX_LOGIT_SCALE", "Epoch", "TrainingState", "best_epoch"]

MAX_LOGIT_SCALE = 100.0
"""Largest 1 / temperature, CLIP's own limit."""


@dataclass(frozen=True)
class Epoch:
    """Result of one epoch.

    Attributes:
        number: number of the epoch, from 1; 0 is the state before training.
        loss: mean loss over the training batches; NaN for epoch 0.
        validation: retrieval on the held-out pairs.
        learning_rate: peak learning rate of the run that the epoch belongs to.
    """

    number: int
    loss: float
    validation: RetrievalMetrics
    learning_rate: float


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch whose weights are kept: the first with the highest mean reciprocal rank."""
    return max(history, key=lambda epoch: epoch.validation.mrr)


class TrainingState:
    """State of one training run at one learning rate."""

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
        self._pairs = pairs
        self.batches = Batches(pairs, config, device)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))
        matrices = [p for p in adapter.parameters() if p.ndim > 1]
        others = [p for p in adapter.parameters() if p.ndim <= 1] + [self.logit_scale]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=rate,
            fused=True,
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
        seed = config.seed * 100_003 + number + place() * 10**12  # each process has noise of its own
        self.adapter.noise = torch.Generator(self.device).manual_seed(seed)
        # Dropout draws from the global generator: from a state that the epoch decides, and restored afterwards.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self._epoch(number, steps, warmup)

    def _epoch(self, number: int, steps: int, warmup: int) -> float:
        config = self.config
        self.adapter.train()
        parameters = [*self.adapter.parameters(), self.logit_scale]
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(self.batches.epoch(number)):
            step = (number - 1) * self.batches.count + index
            decay = (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))) / 2
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * min((step + 1) / warmup, decay)
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss = self.objective(self.adapter, *batch, self.logit_scale.exp())
            loss.backward()
            average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
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

    @cached_property
    def _identity(self) -> str:
        """Facts that a checkpoint shares with the run that resumes from it, as JSON."""
        sides = self._pairs.matches.text, self._pairs.video_rows
        data = [self._pairs.digest, *(math.fsum(float(block.sum()) for block in blocks(side)) for side in sides)]
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
        metadata = {"run": self._identity, "history": json.dumps([asdict(epoch) for epoch in history])}
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            save_file({key: value.contiguous().clone() for key, value in tensors.items()}, part, metadata)

    def restore(self, path: Path) -> list[Epoch]:
        """Restore the state of a checkpoint and return its epochs."""
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DITSError(f"{path}: is no intact checkpoint ({error}). Remove it to start anew.") from None
        if metadata.get("run") != self._identity:
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
