"""How an adapter is trained on cached vectors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """Recipe of the frozen mode: AdamW, linear warm-up, cosine to zero, best validation epoch kept.

    Attributes:
        epochs: passes over all (text, video) pairs.
        batch_size: pairs a step; each is contrasted with all others of the batch.
        learning_rate: peak learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: share of all steps that warm up linearly.
        temperature: initial temperature of the loss, learned along (CLIP starts at 0.07).
        gradient_norm: gradients are clipped to this norm.
        validation: share of the videos that is held out to choose the epoch.
        seed: of initial weights, batches, noise and the held-out videos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=0.07, gt=0.01)
    gradient_norm: float = Field(default=1.0, gt=0)
    validation: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=24, ge=0)
