"""Where training begins: untrained adapters, closed forms, and the start of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dits_adapter.adapters import (
    Adapter,
    AffineAdapter,
    AffineConfig,
    DiffusionAdapter,
    DITSAdapter,
    FixedPriorAdapter,
    LowRankAdapter,
    MLPAdapter,
    mean_shift,
    procrustes,
    ridge,
)
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.loop import evaluate, gap_loss, train

CLOSED_FORM = ("identity", "mean-shift", "procrustes", "ridge")

OTHERS: Mapping[str, type[Adapter]] = {
    "mlp": MLPAdapter,
    "low-rank-affine": LowRankAdapter,
    "fixed-prior": FixedPriorAdapter,
    "diffusion": DiffusionAdapter,
    "diffusion-pretrained": DiffusionAdapter,
}
"""Adapters that are a class of their own. `initialize` pre-trains diffusion; `diffusion` goes on with `train`."""

RIDGE_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)

LEARNING_RATES = (5e-5, 5e-4)
"""Tried for every adapter that `compare` trains, and for the linear map that a network starts from: one map wants
a larger one than a deep network, and many pairs bear a larger one than few."""


def fresh_adapter(
    name: str, width: int, sampler: SamplerConfig | None = None, options: Mapping[str, Any] | None = None
) -> Adapter:
    """Build an untrained adapter by the name it has in tables; `torch.manual_seed` decides its initial weights.

    Args:
        name: `dits`, `contrastive-linear` or a key of `OTHERS`; these are trained by `train`.
        width: dimension d.
        sampler: definition of the sampler for `dits`.
        options: fields of the config of a key of `OTHERS`, other than the width.

    Raises:
        InputError: a name that is not trained by gradient, or wrong options.
    """
    if options and name not in OTHERS:
        raise InputError(f"adapter {name!r} takes no options; DITS is defined by its sampler.")
    if name == "dits":
        return DITSAdapter(sampler or SamplerConfig(width=width))
    if name == "contrastive-linear":
        return AffineAdapter(AffineConfig(width=width, method="contrastive-linear"))
    if name in OTHERS:
        kind = OTHERS[name]
        try:
            return kind(kind.Config.model_validate({**(options or {}), "width": width}))
        except ValidationError as error:
            raise InputError(f"options of {name}: {error}") from None
    raise InputError(
        f"adapter {name!r} is unknown; trained are dits, contrastive-linear, {', '.join(OTHERS)}, "
        f"in closed form {', '.join(CLOSED_FORM)}."
    )


def fit_closed_form(name: str, train: Pairs, validation: Pairs) -> AffineAdapter:
    """Fit an adapter of `CLOSED_FORM`; the penalty of `ridge` is chosen on the validation pairs."""
    if name == "identity":
        return AffineAdapter(AffineConfig(width=train.space.width)).eval()
    video = train.video[train.labels]
    if name == "mean-shift":
        return mean_shift(train.text, video)
    if name == "procrustes":
        return procrustes(train.text, video)
    candidates = [ridge(train.text, video, penalty) for penalty in RIDGE_PENALTIES]
    return max(candidates, key=lambda fit: RetrievalMetrics.from_ranks(evaluate(fit, validation)).mrr)


def initialize(
    adapter: Adapter,
    pairs: Pairs,
    validation: Pairs,
    config: TrainingConfig,
    *,
    device: str | torch.device = "auto",
    checkpoints: Path | None = None,
) -> None:
    """Put an untrained adapter where its training should begin.

    Diffusion is pre-trained: it learns to predict the noise in the gaps of the pairs (Eqs. 4 to 6).

    A contrastive linear map begins at the closed form that is best on the validation pairs, and a sampler or an
    MLP with an affine start at the contrastive linear map: its network is zero, so epoch 0 *is* that map. Each
    keeps its best epoch, epoch 0 included, and so is never worse on the validation pairs than what is cheaper.

    Args:
        adapter, pairs, validation, config, device, checkpoints: as for `train`.
    """
    options: dict[str, Any] = {"device": device, "checkpoints": checkpoints, "progress": False}
    if isinstance(adapter, DiffusionAdapter):
        train(adapter, pairs, validation, config, objective=gap_loss, **options)
    elif isinstance(adapter, AffineAdapter):
        fits = [fit_closed_form(name, pairs, validation) for name in CLOSED_FORM]
        best = max(fits, key=lambda fit: RetrievalMetrics.from_ranks(evaluate(fit, validation)).mrr)
        adapter.load_state_dict(best.state_dict())
    elif isinstance(adapter, (DITSAdapter, MLPAdapter)) and adapter.start is not None:
        linear = AffineAdapter(AffineConfig(width=adapter.width, method="contrastive-linear"))
        initialize(linear, pairs, validation, config)
        plainly = config.model_copy(update={"learning_rate": LEARNING_RATES, "ema": 0.0})
        train(linear, pairs, validation, plainly, **options)
        adapter.start.load_state_dict(linear.state_dict())
