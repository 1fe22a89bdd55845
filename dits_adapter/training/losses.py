"""The contrastive loss (Eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(queries: Tensor, videos: Tensor, logit_scale: Tensor, video_ids: Tensor) -> Tensor:
    """Symmetric cross-entropy over the similarities of a whole batch, relevant and irrelevant pairs alike.

    Other captions of a video that the batch holds twice are no negatives of it: their entries are left out of both
    softmaxes.

    Args:
        queries: adapted text embeddings, (b, d), normalised here.
        videos: the matching videos, row by row, (b, d), normalised here.
        logit_scale: 1 / temperature, a scalar.
        video_ids: which video each row belongs to, (b,) integers.

    Returns:
        The mean of the text-to-video and the video-to-text loss, a scalar.
    """
    logits = logit_scale * F.normalize(queries, dim=1) @ F.normalize(videos, dim=1).T
    same = video_ids[:, None] == video_ids[None, :]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
