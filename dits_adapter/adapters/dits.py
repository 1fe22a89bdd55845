"""DITS behind the adapter protocol."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel
from torch import Tensor, nn

from dits_adapter.adapters.base import Adapter
from dits_adapter.sampler import FoldedSampler, SamplerConfig, TruncatedSampler


class DITSAdapter(Adapter):
    """The paper's method: the truncated sampler, deterministic at inference, noisy in training if configured.

    Args:
        config: the sampler's definition.
        sampler: its weights; by default fresh ones, which make the adapter the identity. A folded one makes an
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
        scale = self.config.noise_scale if self.training else 0.0
        return self.sampler(text, video=video, noise_scale=scale, generator=self.noise)

    @property
    def start(self) -> nn.Linear | None:
        """The affine map that the flow starts from; None where it starts from the text."""
        return self.sampler.start

    @property
    def needs_video(self) -> bool:
        """True with the conditions `video` and `both`."""
        return self.config.condition in ("video", "both")

    @property
    def is_plain(self) -> bool:
        """True with T' = 0."""
        return self.config.steps == 0

    def for_inference(self) -> DITSAdapter:
        """Return this adapter with a folded sampler; conditioned ones stay as they are."""
        if self.config.condition != "none" or isinstance(self.sampler, FoldedSampler):
            return self.eval()
        return DITSAdapter(self.config, FoldedSampler(self.sampler)).eval()

    def with_steps(self, steps: int) -> DITSAdapter:
        """Return an adapter on the same weights that runs another number of truncated timesteps T'.

        Raises:
            ValueError: this is the form for inference, which is folded for one T'.
        """
        if isinstance(self.sampler, FoldedSampler):
            raise ValueError("a folded sampler has one T'; take with_steps of the adapter it came from")
        sampler = self.sampler.with_steps(steps)
        return DITSAdapter(sampler.config, sampler).train(self.training)
