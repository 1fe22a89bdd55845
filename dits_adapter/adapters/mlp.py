"""Residual MLP: the plain network that DITS has to beat at equal cost."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dits_adapter.adapters.base import Adapter, Initializer
from dits_adapter.adapters.registry import register_adapter
from dits_adapter.sampler._limits import Depth, MlpRatio, Width
from dits_adapter.sampler.network import Mlp, Start, affine_start, layer_norm

__all__ = ["MLPAdapter", "MLPConfig"]


class MLPConfig(BaseModel):
    """Definition of a residual MLP.

    Attributes:
        width: dimension d.
        depth: number of residual layers.
        mlp_ratio: hidden width of a layer over d.
        start: input of the first layer: `text`, or `affine`, an affine map of the text, as for `SamplerConfig`.
        text_width: dimension of the texts, where they are of another space than the videos; with `affine`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    depth: Depth = Field(default=4, ge=1)
    mlp_ratio: MlpRatio = 4.0
    start: Start = "text"
    text_width: Width | None = Field(default=None, exclude_if=lambda width: width is None)

    @model_validator(mode="after")
    def _possible(self) -> MLPConfig:
        if self.text_width is not None and self.start != "affine":
            raise ValueError("start is 'text'; texts of another space take the start affine")
        return self


@register_adapter
class MLPAdapter(Adapter):
    """Residual MLP, x ← x + fc2(GELU(fc1(LN(x)))) a layer, on unit text or an affine map of it.

    The layers add zero at first, so that the adapter is the identity.
    """

    kind: ClassVar[str] = "mlp"
    Config: ClassVar[type[BaseModel]] = MLPConfig
    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        hidden = int(config.width * config.mlp_ratio)
        layers = [Mlp(config.width, hidden) for _ in range(config.depth)]
        for layer in layers:
            nn.init.zeros_(layer.fc2.weight)
            nn.init.zeros_(layer.fc2.bias)
        self.layers = nn.ModuleList(layers)
        self.start = affine_start(config.width, config.text_width) if config.start == "affine" else None

    def forward(self, text: Tensor) -> Tensor:
        """Map (n, d) of any norm to (n, d)."""
        x = F.normalize(text.to(next(self.parameters()).dtype), dim=1)
        if self.start is not None:
            x = self.start(x)
        for layer in self.layers:
            x = x + layer(layer_norm(x))
        return x.to(text.dtype)

    def initialize(self, initializer: Initializer) -> None:
        """Set an affine start to the contrastive linear map; the layers add zero at first."""
        if self.start is not None:
            self.start.load_state_dict(initializer.contrastive_linear().state_dict())
