"""The truncated sampler (Eq. 8): moves a text embedding to the video side in T' steps."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dits_adapter.errors import InputError
from dits_adapter.sampler._limits import Depth, MlpRatio, Timesteps, Width
from dits_adapter.sampler.network import AlignmentNetwork, Condition, Start, affine_start
from dits_adapter.sampler.schedule import NoiseSchedule

__all__ = ["SamplerConfig", "TruncatedSampler", "require_generator"]


def require_generator(noise_scale: float, generator: torch.Generator | None) -> None:
    """Raise an `InputError` for noise without a source of its own."""
    if noise_scale and generator is None:
        raise InputError("noise needs a generator: pass torch.Generator().manual_seed(…)")


class SamplerConfig(BaseModel):
    """Definition of a truncated sampler: everything but its weights.

    Attributes:
        width: dimension d of the embeddings.
        depth: blocks N of the alignment network (4 in the paper).
        mlp_ratio: hidden width of a block's MLP over d (4.0 in the paper).
        condition: see `AlignmentNetwork` (`none` is the method).
        timesteps: T, the length of the schedule (10 in the paper).
        steps: T', the truncated timesteps that are run, at most T (10; 5 on DiDeMo in the paper).
        beta_start: β_1 (0.1 in the paper).
        beta_end: β_T (0.99 in the paper).
        noise_scale: factor on λ_t z during TRAINING. 1.0 is the paper; 0.0 is the default, because noise of rms
            norm 52 (d = 512, T' = 10) drowns a unit query. Inference has its own switch, off by default.
        input: `unit` normalizes the text embedding first; `raw` takes it as the encoder gives it, as the paper.
        input_scale: factor on the input after that.
        start: start of the flow: `text` (the paper), or `affine`, an affine map of the text that is trained
            along and starts as the identity or as the best of the linear adapters.
        dropout: dropout of the network's branches, in training (0 in the paper).
        text_width: dimension of the texts, where they are of another space than the videos; with `affine`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    depth: Depth = 4
    mlp_ratio: MlpRatio = 4.0
    condition: Condition = "none"
    timesteps: Timesteps = 10
    steps: int = Field(default=10, ge=0)
    beta_start: float = Field(default=0.1, gt=0, lt=1)
    beta_end: float = Field(default=0.99, gt=0, lt=1)
    noise_scale: float = Field(default=0.0, ge=0)
    input: Literal["unit", "raw"] = "unit"
    input_scale: float = Field(default=1.0, gt=0)
    start: Start = "text"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    text_width: Width | None = Field(default=None, exclude_if=lambda width: width is None)

    @model_validator(mode="after")
    def _consistent(self) -> SamplerConfig:
        if self.steps > self.timesteps:
            raise ValueError(f"steps T'={self.steps} exceeds timesteps T={self.timesteps}")
        if self.text_width is not None and (self.start != "affine" or self.steps == 0):
            raise ValueError("texts of another space take the start affine, and a step or more")
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end {self.beta_end} lies below beta_start {self.beta_start}")
        return self

    @property
    def matrices(self) -> float:
        """Number of d × d matrices that the folded sampler multiplies a query with (`FoldedSampler`).

        A step has one for each block's attention, two times r for the block's MLP, r the MLP ratio, and one that
        leads to the next step; one comes before the first step and one after the last.

        >>> SamplerConfig(width=512).matrices  # 97 million multiplications
        371.0
        """
        if self.steps == 0:
            return 0.0
        return self.steps * (self.depth * (1 + 2 * self.mlp_ratio) + 1) + 1 + (self.start == "affine")

    def scaled(self, text: Tensor) -> Tensor:
        """Scale text embeddings (n, d) to the norm that the flow expects, by `input` and `input_scale`."""
        return (F.normalize(text, dim=1) if self.input == "unit" else text) * self.input_scale


class TruncatedSampler(nn.Module):
    """Sampler that runs Eq. 8 from v_{T'} = text down to v_0, the video-aligned embedding (not normalized).

    Args:
        config: the sampler's definition.
        network: ε_γ; by default a fresh, zero-initialized `AlignmentNetwork`.
    """

    def __init__(self, config: SamplerConfig, network: AlignmentNetwork | None = None) -> None:
        super().__init__()
        self.config = config
        self.schedule = NoiseSchedule.linear(config.timesteps, config.beta_start, config.beta_end)
        self.network = network or AlignmentNetwork(
            config.width, config.depth, config.mlp_ratio, config.condition, config.dropout
        )
        self.start = affine_start(config.width, config.text_width) if config.start == "affine" else None

    def with_steps(self, steps: int) -> TruncatedSampler:
        """Return a sampler on the same weights that runs another number of truncated timesteps T'."""
        config = SamplerConfig.model_validate({**self.config.model_dump(), "steps": steps})
        sampler = TruncatedSampler(config, self.network)
        sampler.start = self.start
        return sampler

    def forward(
        self,
        text: Tensor,
        *,
        steps: int | None = None,
        video: Tensor | None = None,
        noise_scale: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return v_0, (n, d), in the dtype of `text`; arguments as for `trajectory`."""
        return self.trajectory(text, steps=steps, video=video, noise_scale=noise_scale, generator=generator)[-1]

    def trajectory(
        self,
        text: Tensor,
        *,
        steps: int | None = None,
        video: Tensor | None = None,
        noise_scale: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Return the whole path [v_{T'}, …, v_0], T' + 1 tensors (n, d).

        Args:
            text: text embeddings, (n, d), of any float dtype; computed in the dtype of the weights.
            steps: T' for this call; `config.steps` by default. With 0 the path is [text], bit for bit.
            video: video embeddings, (n, d), for networks conditioned on the video.
            noise_scale: factor on λ_t z; 0 is deterministic, 1 the paper's sampler.
            generator: source of z; required with noise, so that no result depends on a hidden state.

        Raises:
            InputError: steps outside 0 … T, or noise without a generator.
        """
        steps = self.config.steps if steps is None else steps
        if not 0 <= steps <= self.config.timesteps:
            raise InputError(f"steps T'={steps} lies outside 0 … T={self.config.timesteps}")
        require_generator(noise_scale, generator)
        if steps == 0:
            return [text]
        v = text.to(next(self.network.parameters()).dtype)
        conditions = {}
        if self.network.condition != "none":
            conditions = {"text": v, "video": None if video is None else video.to(v.dtype)}
        v = self.config.scaled(v)
        if self.start is not None:
            v = self.start(v)
        path = [v]
        for t in range(steps, 0, -1):
            v = v - float(self.schedule.chi[t - 1]) * self.network(v, t, **conditions)
            if noise_scale and t > 1:
                z = torch.empty_like(v).normal_(generator=generator)
                v = v + noise_scale * float(self.schedule.lam[t - 1]) * z
            path.append(v)
        return [point.to(text.dtype) for point in path]
