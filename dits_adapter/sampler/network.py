"""Alignment network ε_γ: a DiT without patchify whose input is one token, the embedding itself.

Parameter names are those of the released DiT, so that weights can be exchanged with it; the input layer, a
patch embedding there, is a linear map here.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits_adapter.errors import InputError

__all__ = [
    "LAYER_NORM_EPS",
    "AlignmentNetwork",
    "Condition",
    "DiTBlock",
    "FinalLayer",
    "Mlp",
    "OneTokenAttention",
    "Start",
    "TimestepEmbedder",
    "affine_start",
    "layer_norm",
]

Condition = Literal["none", "text", "video", "both"]
"""Embeddings that a network is conditioned on beside the timestep."""

Start = Literal["text", "affine"]
"""Start of a flow: the text, or an affine map of the text that is trained along."""

_FREQUENCIES = 256

LAYER_NORM_EPS = 1e-6
"""Epsilon of every LayerNorm, DiT's."""


def layer_norm(x: Tensor) -> Tensor:
    """Apply DiT's LayerNorm: over the last dimension, without affine parameters, eps 1e-6."""
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)


def affine_start(width: int, text_width: int | None = None) -> nn.Linear:
    """Return the map, (n, `text_width`) to (n, d), of a network with the start `affine`: at first the identity."""
    start = nn.Linear(text_width or width, width)
    nn.init.eye_(start.weight)
    nn.init.zeros_(start.bias)
    return start


class TimestepEmbedder(nn.Module):
    """Embedding of the timestep: sinusoidal features, then two linear layers with SiLU between, 256 → d → d."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed timesteps (n,), counted from 1: (n, d)."""
        dtype = next(self.parameters()).dtype
        half = _FREQUENCIES // 2
        exponents = torch.arange(half, device=t.device, dtype=torch.float64) / half
        angles = t.double()[:, None] * torch.exp(-math.log(10_000) * exponents)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype))


class OneTokenAttention(nn.Module):
    """Self-attention over a sequence of length one.

    The softmax is exactly 1 whatever q, k and the number of heads are, so only the value path is computed.
    q and k stay in the state dict, as in DiT, and receive exactly zero gradient.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d) to (n, d)."""
        width = x.shape[-1]
        return self.proj(F.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :]))


class Mlp(nn.Module):
    """MLP of two linear layers with tanh-approximated GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d) to (n, d)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class DiTBlock(nn.Module):
    """Block of DiT with adaLN-Zero: shift, scale and gate of both branches come from the timestep embedding."""

    def __init__(self, width: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attn = OneTokenAttention(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (n, d) under the conditioning (n or 1, d) to (n, d)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_a * self.dropout(self.attn(layer_norm(x) * (1 + scale_a) + shift_a))
        return x + gate_m * self.dropout(self.mlp(layer_norm(x) * (1 + scale_m) + shift_m))


class FinalLayer(nn.Module):
    """Output layer: modulated LayerNorm and a linear map, initialized so that the network's output is zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (n, d) under the conditioning (n or 1, d) to (n, d)."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(layer_norm(x) * (1 + scale) + shift)


class AlignmentNetwork(nn.Module):
    """Alignment network ε_γ(v_t, t), which predicts the gap that step t of the sampler removes.

    The output is exactly 0 before training, so the sampler starts as the identity. At d = 512 the network has
    20,349,952 parameters.

    Args:
        width: dimension d of the embeddings.
        depth: number of blocks N (4 in the paper).
        mlp_ratio: hidden width of a block's MLP over d (4.0 in the paper).
        dropout: probability of dropping an output of a branch in training (0 in the paper).
        condition: inputs of the network beside v_t and t. `none` is the method; `text`, `video` and `both` are
            the paper's ablation (Table 6a), added to the timestep embedding through one linear map each.
    """

    def __init__(
        self,
        width: int,
        depth: int = 4,
        mlp_ratio: float = 4.0,
        condition: Condition = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.condition: Condition = condition
        self.x_embedder = nn.Linear(width, width)
        self.t_embedder = TimestepEmbedder(width)
        names = {"none": (), "text": ("text",), "video": ("video",), "both": ("text", "video")}[condition]
        self.c_embedder = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.blocks = nn.ModuleList(DiTBlock(width, mlp_ratio, dropout) for _ in range(depth))
        self.final_layer = FinalLayer(width)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for linear in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(linear.weight, std=0.02)  # type: ignore[arg-type]
        for layer in (*self.blocks, self.final_layer):
            nn.init.zeros_(layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(
        self, x: Tensor, t: int | Tensor, *, text: Tensor | None = None, video: Tensor | None = None
    ) -> Tensor:
        """Predict ε for embeddings at timestep t.

        Args:
            x: v_t, (n, d).
            t: timestep, counted from 1; one for all rows, or one each, (n,).
            text: (n, d), used by the conditions `text` and `both`.
            video: (n, d), used by the conditions `video` and `both`.

        Returns:
            ε, (n, d).
        """
        c = self.t_embedder(torch.as_tensor(t, device=x.device).reshape(-1))
        conditions = {"text": text, "video": video}
        for name, embed in self.c_embedder.items():
            condition = conditions[name]
            if condition is None:
                raise InputError(f"this network is conditioned on the {name}; pass {name}= of shape (n, d)")
            c = c + embed(condition)
        x = self.x_embedder(x)
        for block in self.blocks:
            x = block(x, c)
        return self.final_layer(x, c)
