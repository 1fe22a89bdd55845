"""Low-rank affine adapter: few parameters, for few pairs."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from dits_adapter.adapters.base import Adapter
from dits_adapter.adapters.registry import AdapterEntry, register_entry
from dits_adapter.sampler._limits import Width

__all__ = ["LowRankAdapter", "LowRankConfig"]


class LowRankConfig(BaseModel):
    """Definition of a low-rank affine adapter.

    Attributes:
        width: dimension d.
        rank: rank r of the correction to the identity; more than d is more than needed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    rank: Width = 32


class LowRankAdapter(Adapter):
    """Affine adapter y = x + U V x + b on unit text, U (d, r) and V (r, d); at first the identity, with U = 0."""

    kind: ClassVar[str] = "low-rank-affine"
    Config: ClassVar[type[BaseModel]] = LowRankConfig
    linear: ClassVar[bool] = True
    config: LowRankConfig

    def __init__(self, config: LowRankConfig) -> None:
        super().__init__()
        self.config = config
        self.down = nn.Parameter(torch.empty(config.rank, config.width).normal_(std=config.width**-0.5))
        self.up = nn.Parameter(torch.zeros(config.width, config.rank))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, text: Tensor) -> Tensor:
        """Map (n, d) of any norm to (n, d)."""
        x = F.normalize(text.to(self.bias.dtype), dim=1)
        return (x + F.linear(F.linear(x, self.down), self.up, self.bias)).to(text.dtype)


register_entry(AdapterEntry("low-rank-affine", LowRankAdapter, compared=True))
