"""DITS as an adapter: on the text's side, and for the paper's comparison on the video's."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel
from torch import Tensor, nn

from dits_adapter.adapters.base import Adapter, Initializer, cosines
from dits_adapter.adapters.registry import register_adapter
from dits_adapter.errors import InputError
from dits_adapter.sampler import FoldedSampler, SamplerConfig, TruncatedSampler
from dits_adapter.sampler._flow import can_flow, flow

__all__ = ["DITSAdapter", "VideoSideDITSAdapter"]


@register_adapter
class DITSAdapter(Adapter):
    """DITS, the paper's method: the truncated sampler, deterministic at inference, optionally noisy in training.

    Args:
        config: the sampler's definition.
        sampler: the sampler with its weights; by default a fresh one, the identity. A folded sampler makes an
            adapter for inference alone.
    """

    kind: ClassVar[str] = "dits"
    Config: ClassVar[type[BaseModel]] = SamplerConfig
    config: SamplerConfig

    def __init__(self, config: SamplerConfig, sampler: TruncatedSampler | FoldedSampler | None = None) -> None:
        super().__init__()
        self.config = config
        self.sampler: TruncatedSampler | FoldedSampler = sampler or TruncatedSampler(config)

    def forward(self, text: Tensor, video: Tensor | None = None) -> Tensor:
        """Run Eq. 8 on (n, d). In training mode with `config.noise_scale`, noise comes from `self.noise`."""
        if isinstance(self.sampler, FoldedSampler):
            return self.sampler(text)
        if self.training and can_flow(self.sampler):
            return flow(self.sampler, text, noise_scale=self.config.noise_scale, generator=self.noise)[0]
        scale = self.config.noise_scale if self.training else 0.0
        return self.sampler(text, video=video, noise_scale=scale, generator=self.noise)

    @property
    def trains_in_bfloat16(self) -> bool:
        """True without condition and dropout, where training runs all steps as one function (`flow`)."""
        return can_flow(self.sampler)

    @property
    def start(self) -> nn.Linear | None:
        """Affine map that the flow starts from; None where the flow starts from the text."""
        return self.sampler.start

    @property
    def needs_video(self) -> bool:
        """True with the conditions `video` and `both`."""
        return self.config.condition in ("video", "both")

    @property
    def needs_norm(self) -> bool:
        """True with the input `raw`."""
        return self.config.input == "raw"

    @property
    def steps(self) -> int:
        """T' of the sampler."""
        return self.config.steps

    @property
    def max_steps(self) -> int:
        """T of the schedule."""
        return self.config.timesteps

    @property
    def has_trajectory(self) -> bool:
        """True unless the path depends on the video."""
        return not self.needs_video

    def trajectory(self, text: Tensor) -> list[Tensor]:
        """Return [v_{T'}, …, v_0] of texts (n, d), T' + 1 tensors (n, d), without noise and not normalized.

        Raises:
            InputError: the sampler depends on the video.
        """
        if self.needs_video:
            return super().trajectory(text)
        if self.training and can_flow(self.sampler):
            return flow(self.sampler, text, whole=True)
        return self.sampler.trajectory(text)

    def initialize(self, initializer: Initializer) -> None:
        """Set an affine start to the contrastive linear map; the network's output is zero at first."""
        if self.start is not None:
            self.start.load_state_dict(initializer.contrastive_linear().state_dict())

    @property
    def is_plain(self) -> bool:
        """True with T' = 0."""
        return self.config.steps == 0

    def for_inference(self) -> DITSAdapter:
        """Return this adapter with a folded sampler; a conditioned adapter stays as it is."""
        if self.config.condition != "none" or isinstance(self.sampler, FoldedSampler):
            return self.eval()
        return DITSAdapter(self.config, FoldedSampler(self.sampler)).eval()

    def with_steps(self, steps: int) -> DITSAdapter:
        """Return an adapter on the same weights that runs another number of truncated timesteps T'.

        Raises:
            InputError: steps outside 0 … T, or the form for inference, which is folded for one T'.
        """
        if isinstance(self.sampler, FoldedSampler):
            raise InputError("a folded sampler has one T'; take with_steps of the adapter it came from.")
        if not 0 <= steps <= self.max_steps:
            raise InputError(f"steps is {steps}; this adapter runs 0 to {self.max_steps} truncated timesteps.")
        sampler = self.sampler.with_steps(steps)
        return DITSAdapter(sampler.config, sampler).train(self.training)


@register_adapter
class VideoSideDITSAdapter(Adapter):
    """DITS on the video's side: moves each video towards the texts, δ = t − v, and leaves the texts (Table 6b).

    For comparisons: no text has a vector that would search an index of the videos as they are.
    """

    kind: ClassVar[str] = "dits-of-videos"
    Config: ClassVar[type[BaseModel]] = SamplerConfig
    config: SamplerConfig

    def __init__(self, config: SamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.sampler = TruncatedSampler(config)

    @property
    def needs_video(self) -> bool:
        """True: the videos move."""
        return True

    def forward(self, video: Tensor) -> Tensor:
        """Run Eq. 8 on videos (n, d), in training with `config.noise_scale` and noise from `self.noise`."""
        scale = self.config.noise_scale if self.training else 0.0
        return self.sampler(video, noise_scale=scale, generator=self.noise)

    def similarity(self, text: Tensor, video: Tensor) -> Tensor:
        """Return the cosines (n, m) of texts (n, d) as they are and moved videos, (m, d) or (n, m, d)."""
        return cosines(text, self(video.flatten(0, -2)).unflatten(0, video.shape[:-1]))
