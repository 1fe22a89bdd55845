"""Folded form of the truncated sampler for inference: the same function with less than half the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits_adapter.sampler._fold import BlockFold, fold
from dits_adapter.sampler.network import LAYER_NORM_EPS, Mlp
from dits_adapter.sampler.sampler import TruncatedSampler

__all__ = ["FoldedSampler"]


def _linear(weights: tuple[Tensor, Tensor], like: Tensor) -> nn.Linear:
    """Return a linear layer with the given weight and bias, in dtype and on the device of `like`."""
    weight, bias = weights
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=like.device, dtype=like.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


class _FoldedBlock(nn.Module):
    """`DiTBlock` whose attention is one linear map and whose modulation is an argument."""

    def __init__(self, block: BlockFold, like: Tensor) -> None:
        super().__init__()
        self.attn, fc1, fc2 = (_linear(weights, like) for weights in (*block.attn, *block.mlp))
        self.mlp = Mlp(fc1.in_features, fc1.out_features).to(like)
        self.mlp.fc1, self.mlp.fc2 = fc1, fc2

    def forward(self, x: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """Map (n, d) under the modulation, six vectors (d,) whose scales have 1 added, to (n, d)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        x = torch.addcmul(x, gate_a, self.attn(_modulated(x, scale_a, shift_a)))
        return torch.addcmul(x, gate_m, self.mlp(_modulated(x, scale_m, shift_m)))


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], scale, shift, LAYER_NORM_EPS)


class FoldedSampler(nn.Module):
    """Folded form of a `TruncatedSampler` without noise, for its T' steps.

    The weights are copies, computed in float64 and without gradient: fold again after training.

    Args:
        sampler: a sampler with an unconditioned network.

    Raises:
        InputError: the network is conditioned, so that its modulation is no table.
    """

    table: Tensor

    @torch.no_grad()
    def __init__(self, sampler: TruncatedSampler) -> None:
        super().__init__()
        self.config, like = sampler.config, sampler.network.x_embedder.weight
        weights = fold(sampler, torch.float64)
        self.start = None if sampler.start is None else _linear((sampler.start.weight, sampler.start.bias), like)
        self.x_embedder = _linear(weights.inward, like)
        self.blocks = nn.ModuleList(_FoldedBlock(block, like) for block in weights.blocks)
        self.merged = nn.Parameter(weights.merged.to(like))
        self.linear = _linear(weights.outward, like)
        self.traveled = weights.traveled
        self.register_buffer("table", weights.table)
        self.requires_grad_(False).eval()

    def forward(self, text: Tensor) -> Tensor:
        """Return v_0, (n, d), in the dtype of `text`; see `TruncatedSampler.forward`."""
        if self.config.steps == 0:
            return text
        v = self._start(text)
        return self._moved(v, reduce(torch.add, self._removed(v)), self.traveled[-1]).to(text.dtype)

    def trajectory(self, text: Tensor) -> list[Tensor]:
        """Return the whole path [v_{T'}, …, v_0]; see `TruncatedSampler.trajectory`."""
        if self.config.steps == 0:
            return [text]
        v = self._start(text)
        path, removed = [v], torch.zeros_like(v)
        for part, traveled in zip(self._removed(v), self.traveled, strict=True):
            removed = removed + part
            path.append(self._moved(v, removed, traveled))
        return [point.to(text.dtype) for point in path]

    def _start(self, text: Tensor) -> Tensor:
        v = self.config.scaled(text.to(self.table.dtype))
        return v if self.start is None else self.start(v)

    def _removed(self, v: Tensor) -> Iterator[Tensor]:
        """Yield χ_t n_t, (n, d), for t = T' … 1; `_moved` applies F to their sum."""
        x = self.x_embedder(v)
        for index, row in enumerate(self.table.unbind()):
            *modulations, shift, scale, bias = row.unbind()
            h = x
            for number, block in enumerate(self.blocks):
                h = block(h, modulations[6 * number : 6 * number + 6])
            part = _modulated(h, scale, shift)
            yield part
            if index + 1 < len(self.table):
                x = x + F.linear(part, self.merged, bias)

    def _moved(self, v: Tensor, removed: Tensor, traveled: float) -> Tensor:
        """Return v − F Σ χ_t n_t − f Σ χ_t; `removed` is the sum of χ_t n_t, `traveled` that of χ_t."""
        return v + F.linear(removed, self.linear.weight, traveled * self.linear.bias)
