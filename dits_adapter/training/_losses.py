"""Losses of a batch: the contrastive one (Eq. 2), and the type of all."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dits_adapter.adapters.base import Adapter, cosines

__all__ = ["Objective", "contrast", "contrastive_loss"]

Objective = Callable[[Adapter, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Loss of a batch: (adapter, text (b, d), their videos (b, d), video numbers (b,), 1 / temperature) -> scalar."""


def contrast(adapter: Adapter, text: Tensor, video: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
    """Return the contrastive loss of adapted texts and videos; an `Objective`."""
    queries = adapter.towards(text, video)
    with torch.autocast(text.device.type, enabled=False):
        return contrastive_loss(cosines(queries, video), logit_scale, labels)


def contrastive_loss(similarity: Tensor, logit_scale: Tensor, video_ids: Tensor) -> Tensor:
    """Symmetric cross-entropy over the similarities of a whole batch, relevant and irrelevant pairs alike.

    Other captions of a video that the batch holds twice are no negatives of it: their entries are left out of both
    softmaxes.

    Args:
        similarity: cosine of text i and the video of pair j, (b, b); the matching pairs are the diagonal.
        logit_scale: 1 / temperature, a scalar.
        video_ids: which video each pair belongs to, (b,) integers.

    Returns:
        The mean of the text-to-video and the video-to-text loss, a scalar.
    """
    same = video_ids[:, None] == video_ids[None, :]
    same.fill_diagonal_(False)
    logits = (logit_scale * similarity).masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
