"""The contrastive loss (Eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
