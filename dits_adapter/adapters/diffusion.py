"""Stochastic adapters of the paper's comparison: the gap drawn from a fixed prior, or by vanilla diffusion.

Both adapters draw noise. In training every row has a draw of its own, from `Adapter.noise`. At inference all
queries share one draw, which follows from the seed in the config: the same query always gives the same vector,
alone or in a batch.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dits_adapter.adapters.base import Adapter, Initializer
from dits_adapter.adapters.registry import AdapterEntry, register_adapter, register_entry
from dits_adapter.errors import InputError
from dits_adapter.sampler import AlignmentNetwork, NoiseSchedule
from dits_adapter.sampler._limits import Depth, MlpRatio, Timesteps, Width
from dits_adapter.sampler.network import Condition

__all__ = ["DiffusionAdapter", "DiffusionConfig", "FixedPriorAdapter", "FixedPriorConfig"]


class FixedPriorConfig(BaseModel):
    """Definition of the fixed prior.

    Attributes:
        width: dimension d.
        variance: σ² of each component of the gap (0.1 and 1 in the paper).
        input: `raw` takes the text as the encoder gives it, as the paper; `unit` normalizes it first, beside which
            the paper's variances are enormous.
        seed: seed of the draw at inference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    variance: float = Field(default=0.1, ge=0)
    input: Literal["unit", "raw"] = "raw"
    seed: int = Field(default=24, ge=0)


@register_adapter
class FixedPriorAdapter(Adapter):
    """Fixed prior v = t + δ with δ ~ N(0, σ² I) (Eq. 3), an adapter without weights.

    It is text augmented with noise: in the joint mode the encoder can learn to live with it; on cached vectors
    nothing is left to learn.
    """

    kind: ClassVar[str] = "fixed-prior"
    Config: ClassVar[type[BaseModel]] = FixedPriorConfig
    config: FixedPriorConfig

    def __init__(self, config: FixedPriorConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def needs_norm(self) -> bool:
        """True with the input `raw`."""
        return self.config.input == "raw"

    @property
    def exportable(self) -> bool:
        """False: the adapter serves for comparisons."""
        return False

    def forward(self, text: Tensor) -> Tensor:
        """Map (n, d) to (n, d)."""
        start = F.normalize(text, dim=1) if self.config.input == "unit" else text
        return start + math.sqrt(self.config.variance) * _Draws(self, self.config.seed, start).next()


class DiffusionConfig(BaseModel):
    """Definition of vanilla diffusion over the gap.

    Attributes:
        width: dimension d.
        depth: blocks of the network, the alignment network of DITS.
        mlp_ratio: hidden width of a block's MLP over d.
        condition: inputs of the network beside δ_t and t (`text` in the paper).
        objective: error of the predicted noise before the contrastive fine-tuning: `l2` or `l1`.
        timesteps: T, as many as DITS has.
        beta_start: β_1, likewise.
        beta_end: β_T. DITS goes to 0.99, but Eq. 7 divides by √α_t: there it multiplies each error of the network
            by ten, and what is drawn has nothing to do with the gap.
        seed: seed of the draw at inference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    depth: Depth = 4
    mlp_ratio: MlpRatio = 4.0
    condition: Condition = "text"
    objective: Literal["l2", "l1"] = "l2"
    timesteps: Timesteps = 10
    beta_start: float = Field(default=0.1, gt=0, lt=1)
    beta_end: float = Field(default=0.6, gt=0, lt=1)
    seed: int = Field(default=24, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> DiffusionConfig:
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end {self.beta_end} lies below beta_start {self.beta_start}")
        return self


@register_adapter
class DiffusionAdapter(Adapter):
    """Vanilla diffusion: draws the gap of a unit text from pure noise in T steps and moves the text (Eqs. 4 to 7).

    Diffusion runs on √d δ: the components of unit vectors are of size 1/√d, those of the noise of size 1.
    """

    kind: ClassVar[str] = "diffusion"
    Config: ClassVar[type[BaseModel]] = DiffusionConfig
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = NoiseSchedule.linear(config.timesteps, config.beta_start, config.beta_end)
        self.network = AlignmentNetwork(config.width, config.depth, config.mlp_ratio, config.condition)

    @property
    def needs_video(self) -> bool:
        """True with the conditions `video` and `both`."""
        return self.config.condition in ("video", "both")

    @property
    def exportable(self) -> bool:
        """False: the adapter serves for comparisons."""
        return False

    def initialize(self, initializer: Initializer) -> None:
        """Pre-train the network to predict the noise in the gaps of the pairs."""
        initializer.pretrain(self, DiffusionAdapter.gap_loss)

    def forward(self, text: Tensor, video: Tensor | None = None) -> Tensor:
        """Draw a gap for each text (n, d) of any norm and move the text by the gap: (n, d)."""
        unit = F.normalize(text.to(self.network.x_embedder.weight.dtype), dim=1)
        conditions = self._conditions(unit, video)
        draws = _Draws(self, self.config.seed, unit)
        gap = draws.next()
        for t in range(self.config.timesteps, 0, -1):
            gap = self.step(gap, self.network(gap, t, **conditions), t)
            if t > 1:
                gap = gap + float(self.schedule.lam[t - 1]) * draws.next()
        return (unit + gap / math.sqrt(self.width)).to(text.dtype)

    def step(self, gap: Tensor, noise: Tensor, t: int) -> Tensor:
        """Return the mean of √d δ_{t−1} given √d δ_t and its noise (Eq. 7), both (n, d), t counted from 1."""
        beta, alpha, alpha_bar = (
            float(x[t - 1]) for x in (self.schedule.beta, self.schedule.alpha, self.schedule.alpha_bar)
        )
        return (gap - beta / math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha)

    def gap_loss(self, text: Tensor, video: Tensor) -> Tensor:
        """Return the error of the noise predicted in the gaps of matching pairs (Eqs. 4 to 6), a scalar.

        Args:
            text: text embeddings, (n, d).
            video: their videos, row by row, (n, d).
        """
        unit, towards = F.normalize(text, dim=1), F.normalize(video, dim=1)
        gap = math.sqrt(self.width) * (towards - unit)
        t = torch.randint(1, self.config.timesteps + 1, (len(gap),), generator=self.noise, device=gap.device)
        alpha_bar = torch.as_tensor(self.schedule.alpha_bar, device=gap.device, dtype=gap.dtype)[t - 1, None]
        noise = torch.empty_like(gap).normal_(generator=self.noise)
        mixed = alpha_bar.sqrt() * gap + (1 - alpha_bar).sqrt() * noise
        predicted = self.network(mixed, t, **self._conditions(unit, towards))
        compare = F.mse_loss if self.config.objective == "l2" else F.l1_loss
        return compare(predicted.to(noise.dtype), noise)

    def _conditions(self, text: Tensor, video: Tensor | None) -> dict[str, Tensor | None]:
        """Return the conditions of the network, text and video (n, d), in the scale of the gap."""
        scale = math.sqrt(self.width)
        seen = None if video is None else scale * F.normalize(video.to(text.dtype), dim=1)
        return {"text": scale * text, "video": seen}


register_entry(AdapterEntry("diffusion-pretrained", DiffusionAdapter, contrast=False))


class _Draws:
    """Standard normal draws (n, d): a row each in training, one for all rows at inference."""

    def __init__(self, adapter: Adapter, seed: int, like: Tensor) -> None:
        self._like = like
        self._rows = len(like) if adapter.training else 1
        if adapter.training and adapter.noise is None:
            raise InputError("training draws noise: set Adapter.noise to a torch.Generator")
        self._generator = adapter.noise if adapter.training else torch.Generator(like.device).manual_seed(seed)

    def next(self) -> Tensor:
        like = self._like
        drawn = torch.randn(
            self._rows, like.shape[1], generator=self._generator, device=like.device, dtype=like.dtype
        )
        return drawn.expand_as(like)
