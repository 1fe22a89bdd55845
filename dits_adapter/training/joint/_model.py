"""Model of joint training: dual encoder, X-Pool head and adapter under one loss."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits_adapter.adapters import Adapter, adapter_entry
from dits_adapter.encoders._families import DUAL_FAMILIES
from dits_adapter.encoders.base import load_encoder
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.errors import InputError
from dits_adapter.training._losses import contrastive_loss
from dits_adapter.training._processes import gather
from dits_adapter.training.config import JointLoss, JointRecipe
from dits_adapter.xpool import XPool

__all__ = ["JointModel", "initial_model", "load_trainable"]


class JointModel(nn.Module):
    """Model of a dual encoder's model, X-Pool head and adapter, whose output is the loss of a whole batch (Eq. 2).

    Every process embeds its share of the batch and compares its texts with the videos of all; the loss, on each
    process the same, is that of the whole batch. The mean of its gradients over the processes, which is what
    DistributedDataParallel takes, is the gradient of one process with the whole batch.
    """

    def __init__(self, encoder: DualEncoder, xpool: XPool, adapter: Adapter, loss: JointLoss = "xpool") -> None:
        super().__init__()
        self._encoder = encoder
        self._loss: JointLoss = loss
        self.clip: Any = encoder.model
        self.xpool = xpool
        self.adapter = adapter

    @property
    def trains_head(self) -> bool:
        """True where the loss trains the X-Pool head."""
        return self._loss != "index"

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
        return {"loss": self.contrast(text, gather(self.embed_clips(pixels)), gather(video))}

    def contrast(self, text: Tensor, frames: Tensor, video: Tensor) -> Tensor:
        """Return the loss of texts (b, d) and frames (m, f, d); `video` numbers the video of each clip, (m,)."""
        losses = [
            contrastive_loss(gather(self.adapter.similarity(text, pooled)), self.clip.logit_scale.exp(), video)
            for pooled in self._pooled(text, frames)
        ]
        return torch.stack(losses).mean()

    def _pooled(self, text: Tensor, frames: Tensor) -> Iterator[Tensor]:
        """Yield the videos to compare texts with: pooled under each text, (n, m, d), and as stored, (m, d)."""
        if self.trains_head:
            yield self.xpool(text, frames).to(text.dtype)
        if self._loss != "xpool":
            yield F.normalize(frames, dim=2).mean(dim=1)


def load_trainable(encoder: str | PathLike[str], recipe: JointRecipe, revision: str | None = None) -> DualEncoder:
    """Load the encoder that a joint training starts from.

    Raises:
        ArtifactError: no encoder is there.
        InputError: one that cannot be trained jointly.
    """
    loaded = load_encoder(encoder, revision=revision, device="cpu", text_cleaning=recipe.text_cleaning)
    if not isinstance(loaded, DualEncoder) or not loaded.family.joint:
        trainable = ", ".join(family.model_type for family in DUAL_FAMILIES.values() if family.joint)
        raise InputError(
            f"{loaded.name} cannot be trained jointly: that takes vectors of frames and a temperature among the "
            f"weights. Families that have them: {trainable}."
        )
    return loaded


def initial_model(clip: DualEncoder, recipe: JointRecipe) -> JointModel:
    """Build the model before training; all of its weights are trained.

    Raises:
        InputError: an adapter that can be trained in frozen mode only.
    """
    clip.model.requires_grad_(True)
    if recipe.gradient_checkpointing:
        # transformers 5.23 brought the new name, and warns of the old one.
        new = getattr(clip.model, "activation_checkpointing_enable", None)
        (new or clip.model.gradient_checkpointing_enable)({"use_reentrant": False})
    adapter = recipe.build_adapter(clip.width)
    if not adapter_entry(recipe.adapter).contrast:
        raise InputError(f"the adapter {recipe.adapter} is for frozen mode: joint mode trains by contrast.")
    if adapter.needs_video and recipe.loss != "xpool":
        raise InputError(f"loss {recipe.loss}: an adapter that sees the video searches no index; take loss xpool.")
    return JointModel(clip, XPool(clip.width, recipe.dropout), adapter, recipe.loss)
