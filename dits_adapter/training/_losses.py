"""Losses of a batch: their type, and the contrastive loss (Eq. 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dits_adapter.adapters.base import Adapter
from dits_adapter.training._processes import gather, share

__all__ = ["Objective", "contrast", "contrastive_loss"]

Objective = Callable[[Adapter, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Loss of a batch: (adapter, text (b, d), their videos (b, d), video numbers (b,), 1 / temperature) -> scalar."""


def contrast(adapter: Adapter, text: Tensor, video: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
    """Return the contrastive loss of adapted texts and videos; an `Objective`.

    Of several processes each adapts its share of the texts, and all have the loss of the whole batch.
    """
    similarity = gather(adapter.similarity(text[share(len(text))], video))
    return contrastive_loss(similarity, logit_scale, labels)


def contrastive_loss(similarity: Tensor, logit_scale: Tensor, video_ids: Tensor) -> Tensor:
    """Return the symmetric cross-entropy over all similarities of a batch, relevant and irrelevant pairs alike.

    Equation 2: with cosines s_ij and the temperature τ it is the mean over i of

        −½ log(exp(s_ii / τ) / Σ_j exp(s_ij / τ)) − ½ log(exp(s_ii / τ) / Σ_j exp(s_ji / τ))

    Two captions of one video are no negatives of each other: their entries are left out of both sums.

    Args:
        similarity: s_ij, cosine of text i and the video of pair j, (b, b); the matching pairs are the diagonal.
        logit_scale: 1 / τ, a scalar.
        video_ids: video of each pair, (b,) integers.

    Returns:
        The mean of the text-to-video and the video-to-text loss, a scalar.
    """
    same = video_ids[:, None] == video_ids[None, :]
    same.fill_diagonal_(False)
    logits = (logit_scale * similarity).masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
