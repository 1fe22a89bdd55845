"""Initial weights: closed forms, and the start of each trained adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dits_adapter.adapters import Adapter, AffineAdapter, adapter_entries, adapter_entry, fresh_adapter
from dits_adapter.adapters.base import PairLoss
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training._losses import Objective, contrast
from dits_adapter.training.config import TrainingConfig

__all__ = ["LEARNING_RATES", "fit_closed_form", "initialize", "require_across"]

LEARNING_RATES = (5e-5, 5e-4)
"""Peak learning rates that `compare` tries for each trained adapter and for the linear map that a network starts
from: a linear map needs a larger rate than a deep network, and many pairs allow a larger rate than few."""


def fit_closed_form(name: str, train: Pairs, validation: Pairs) -> Adapter:
    """Fit an adapter in closed form; the validation pairs choose its parameters, as the penalty of `ridge`.

    Raises:
        InputError: an adapter that has no closed form.
    """
    entry = adapter_entry(name)
    if entry.closed_form is None:
        raise InputError(f"adapter {name!r} has no closed form; it is trained.")
    require_across(name, train.space)
    return _best(entry.closed_form(train.matches), validation)


def require_across(name: str, space: EmbeddingSpace) -> None:
    """Refuse an adapter that stays near the text where texts and videos lie in two spaces.

    Raises:
        InputError: naming those that lead from the one to the other.
    """
    if space.shared:
        return
    entry = adapter_entry(name)
    fitted = not entry.trained and name not in _ACROSS
    if fitted or "text_width" not in entry.adapter.Config.model_fields:
        raise InputError(
            f"adapter {name!r} moves texts within the space of the videos, and those of {space.text.encoder} lie "
            f"in another; {', '.join(_ACROSS)}, contrastive-linear, and mlp and dits with the start affine lead "
            "across."
        )


_ACROSS = ("chance", "ridge", "reduced-rank")
"""Adapters in closed form that lead from one space to another."""


def _best(candidates: Sequence[Adapter], validation: Pairs) -> Adapter:
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda fit: RetrievalMetrics.from_ranks(evaluate(fit, validation)).mrr)


def initialize(
    adapter: Adapter,
    pairs: Pairs,
    validation: Pairs,
    config: TrainingConfig,
    *,
    device: str | torch.device = "auto",
    checkpoints: Path | None = None,
    progress: bool = True,
) -> None:
    """Set the weights from which the training of a fresh adapter begins, by `Adapter.initialize`.

    Diffusion is pre-trained: it learns to predict the noise in the gaps of the pairs (Eqs. 4 to 6).

    A contrastive linear map begins at the closed form that is best on the validation pairs, and a sampler or an
    MLP with an affine start at the contrastive linear map: its network is zero, so epoch 0 *is* that map. Each
    adapter keeps its best epoch, epoch 0 included, and so is never worse on the validation pairs than its start.

    Args:
        adapter, pairs, validation, config, device, checkpoints, progress: as for `train`.
    """
    adapter.initialize(_Initializer(pairs, validation, config, device, checkpoints, progress))


@dataclass(frozen=True)
class _Initializer:
    """`Initializer` of one training run; attributes as for `train`."""

    pairs: Pairs
    validation: Pairs
    config: TrainingConfig
    device: str | torch.device
    checkpoints: Path | None
    progress: bool

    def closed_form(self) -> Adapter:
        """Return the affine adapter in closed form that is best on the validation pairs."""
        entries = [entry for entry in adapter_entries() if entry.closed_form and entry.adapter is AffineAdapter]
        names = [entry.name for entry in entries if entry.compared]
        if not self.pairs.space.shared:
            names = ["reduced-rank"]
        return _best([fit_closed_form(name, self.pairs, self.validation) for name in names], self.validation)

    def contrastive_linear(self) -> Adapter:
        """Return the affine adapter that was trained by contrast from `closed_form`."""
        linear = fresh_adapter(
            "contrastive-linear", self.pairs.space.video.width, text_width=self.pairs.space.other_text_width
        )
        linear.initialize(self)
        config = self.config.model_copy(update={"learning_rate": LEARNING_RATES, "ema": 0.0})
        self._train(linear, config)
        return linear

    def pretrain(self, adapter: Adapter, loss: PairLoss) -> None:
        """Train the adapter in place by a loss of matching pairs instead of contrast."""

        def objective(adapter: Adapter, text: Tensor, video: Tensor, *_: Tensor) -> Tensor:
            return loss(adapter, text, video)

        self._train(adapter, self.config, objective)

    def _train(self, adapter: Adapter, config: TrainingConfig, objective: Objective = contrast) -> None:
        train(
            adapter,
            self.pairs,
            self.validation,
            config,
            objective=objective,
            device=self.device,
            checkpoints=self.checkpoints,
            progress=self.progress,
        )
