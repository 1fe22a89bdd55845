"""Frozen mode: CLIP stays as it is, the adapter learns from cached vectors, the index is not touched."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from dits_adapter.adapters import (
    Adapter,
    AffineAdapter,
    AffineConfig,
    DITSAdapter,
    MLPAdapter,
    MLPConfig,
    mean_shift,
    procrustes,
    ridge,
)
from dits_adapter.clip import pick_device
from dits_adapter.errors import DITSError, InputError
from dits_adapter.metrics import DotProducts, RetrievalMetrics, ranks
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.data import Pairs
from dits_adapter.training.losses import contrastive_loss

RIDGE_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
MAX_LOGIT_SCALE = 100.0
"""CLIP's own limit on 1 / temperature."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean training loss, and the retrieval of the held-out pairs."""

    number: int
    loss: float
    validation: RetrievalMetrics


def evaluate(adapter: Adapter, pairs: Pairs) -> np.ndarray:
    """Return the rank of each text's video, (n,), when adapted texts search the pairs' videos by cosine."""
    video = pairs.video / np.linalg.norm(pairs.video, axis=1, keepdims=True)
    return ranks(DotProducts(adapter.for_inference().adapt(pairs.text), video), pairs.labels)


def fresh_adapter(name: str, width: int, sampler: SamplerConfig | None = None) -> Adapter:
    """Build an untrained adapter by the name it has in tables.

    Args:
        name: `dits`, `mlp` or `contrastive-linear`; these are trained by `train`.
        width: dimension d.
        sampler: definition of the sampler for `dits`.
    """
    if name == "dits":
        return DITSAdapter(sampler or SamplerConfig(width=width))
    if name == "mlp":
        return MLPAdapter(MLPConfig(width=width))
    return AffineAdapter(AffineConfig(width=width, method="contrastive-linear"))


def fit_closed_form(name: str, train: Pairs, validation: Pairs) -> AffineAdapter:
    """Fit `identity`, `mean-shift`, `procrustes` or `ridge`; ridge's penalty is chosen on the validation pairs."""
    if name == "identity":
        return AffineAdapter(AffineConfig(width=train.space.width)).eval()
    video = train.video[train.labels]
    if name == "mean-shift":
        return mean_shift(train.text, video)
    if name == "procrustes":
        return procrustes(train.text, video)
    candidates = [ridge(train.text, video, penalty) for penalty in RIDGE_PENALTIES]
    return max(candidates, key=lambda fit: RetrievalMetrics.from_ranks(evaluate(fit, validation)).mrr)


def train(
    adapter: Adapter,
    pairs: Pairs,
    validation: Pairs,
    config: TrainingConfig,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> list[Epoch]:
    """Train an adapter with the contrastive loss and leave it with the weights of its best epoch.

    The best epoch is the one with the highest mean reciprocal rank on the validation pairs; the test split plays
    no part. Plain CLIP, the state before the first epoch, takes part as epoch 0: where no epoch is better, the
    adapter keeps its initial weights.

    Args:
        adapter: a freshly initialised adapter, changed in place.
        pairs: training pairs.
        validation: held-out pairs of other videos.
        config: the recipe.
        device: a torch device or `"auto"`.
        progress: show a progress bar over the epochs.

    Returns:
        All epochs, the initial state first.

    Raises:
        InputError: an adapter of another width, or pairs without two videos.
        DITSError: the loss became NaN or infinite.
    """
    if adapter.width != pairs.space.width:
        raise InputError(f"the adapter has width {adapter.width}, the pairs {pairs.space.width}.")
    if len(np.unique(pairs.labels)) < 2:
        raise InputError("training needs pairs of at least two videos; a contrast needs something else.")
    pairs.space.require(validation.space, mine="the training pairs", theirs="the validation pairs")
    place = pick_device(device)
    adapter.to(place)
    random = torch.Generator().manual_seed(config.seed)
    if isinstance(adapter, DITSAdapter):
        adapter.noise = torch.Generator(place).manual_seed(config.seed)
    text, video, labels = pairs.tensors(place)
    logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=place))
    matrices = [p for p in adapter.parameters() if p.ndim > 1]
    others = [p for p in adapter.parameters() if p.ndim <= 1] + [logit_scale]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
    )
    steps = config.epochs * max(1, len(text) // config.batch_size)
    warmup = max(1, round(config.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * max(0, step - warmup) / steps)) / 2),
    )

    def score() -> RetrievalMetrics:
        return RetrievalMetrics.from_ranks(evaluate(adapter, validation))

    history = [Epoch(0, math.nan, score())]
    best = copy.deepcopy(adapter.state_dict())
    bar = tqdm(range(1, config.epochs + 1), desc=f"training {adapter.kind}", unit="epoch", disable=not progress)
    for number in bar:
        adapter.train()
        total = torch.zeros((), device=place)
        order = torch.randperm(len(text), generator=random)
        batches = [batch for batch in order.split(config.batch_size) if len(batch) == config.batch_size] or [order]
        for batch in batches:
            rows = batch.to(place)
            optimizer.zero_grad()
            queries = F.normalize(adapter(text[rows]), dim=1)
            similarity = queries @ video[labels[rows]].T
            loss = contrastive_loss(similarity, logit_scale.exp(), labels[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*adapter.parameters(), logit_scale], config.gradient_norm)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            total += loss.detach()
        mean_loss = float(total) / len(batches)
        if not math.isfinite(mean_loss):
            raise DITSError(f"the loss became {mean_loss} in epoch {number}; lower learning_rate or noise_scale.")
        history.append(Epoch(number, mean_loss, score()))
        bar.set_postfix(loss=f"{mean_loss:.3f}", val_r1=f"{history[-1].validation.r1:.1f}")
        if history[-1].validation.mrr > max(epoch.validation.mrr for epoch in history[:-1]):
            best = copy.deepcopy(adapter.state_dict())
    adapter.load_state_dict(best)
    adapter.eval()
    return history
