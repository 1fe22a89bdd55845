"""Model of joint training: dual encoder, X-Pool head and adapter under one loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dits_adapter.adapters import Adapter
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.training._losses import contrastive_loss
from dits_adapter.xpool import XPool

__all__ = ["JointModel"]


def _gather(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all processes in their order; gradients flow back to the process they belong to."""
    if not torch.distributed.is_initialized():
        return tensor
    from sentence_transformers.util.distributed import all_gather_with_grad

    return all_gather_with_grad(tensor)


class JointModel(nn.Module):
    """Model of a dual encoder's model, X-Pool head and adapter, whose output is the loss of a whole batch.

    Every process embeds its share of the batch and compares its texts with the videos of all; the loss, on each
    process the same, is that of the whole batch. The mean of its gradients over the processes, which is what
    DistributedDataParallel takes, is the gradient of one process with the whole batch.
    """

    def __init__(self, encoder: DualEncoder, xpool: XPool, adapter: Adapter) -> None:
        super().__init__()
        self._encoder = encoder
        self.clip: Any = encoder.model
        self.xpool = xpool
        self.adapter = adapter

    def embed_clips(self, pixels: Tensor) -> Tensor:
        """Embed prepared frames (b, f, …): (b, f, d), un-normalized, in the precision of the weights."""
        frames = self._encoder.embed_pixels(pixels.flatten(0, 1))
        return frames.to(self.clip.logit_scale.dtype).unflatten(0, pixels.shape[:2])

    def forward(self, pixels: Tensor, video: Tensor, **tokens: Tensor) -> dict[str, Tensor]:
        """Return the loss of (text, clip) pairs.

        Args:
            pixels: prepared frames, (b, f, …).
            video: video of each pair, (b,).
            tokens: tokens of each text, as the encoder's `texts` returns them, (b, l).
        """
        text = self._encoder.embed_tokens(tokens).to(self.clip.logit_scale.dtype)
        frames = _gather(self.embed_clips(pixels))
        similarity = _gather(self.xpool.similarity(self.adapter(text), text, frames))
        return {"loss": contrastive_loss(similarity, self.clip.logit_scale.exp(), _gather(video))}
