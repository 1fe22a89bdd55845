"""The flow in training: all steps of the folded sampler as one differentiable function.

What autograd would do step by step is done here for all steps at once: activations lie side by side, so that each
weight meets its gradient in one product over the rows of all steps, and steps beyond the memory that they may take
are computed again in the backward pass. The matrices multiply in the dtype of autocast where that is on; sums,
LayerNorms and the state keep the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dits_adapter.sampler._fold import fold
from dits_adapter.sampler.network import LAYER_NORM_EPS
from dits_adapter.sampler.sampler import TruncatedSampler, require_generator

__all__ = ["can_flow", "flow"]

_KEPT = 2**30
"""Bytes of activations that are kept for the backward pass; a flow with more is computed again there, in parts."""

_CACHED = 32
"""Rows of an MLP's activations that stay in a processor's cache."""

_C1 = 2 * (2 / torch.pi) ** 0.5
_C3 = 0.044715 * _C1
"""Coefficients of DiT's GELU, approximated by tanh, which is x σ(c₁ x + c₃ x³)."""


def can_flow(sampler: nn.Module) -> TypeGuard[TruncatedSampler]:
    """Return True for samplers that `flow` computes: unfolded, with steps, without condition and dropout."""
    if not isinstance(sampler, TruncatedSampler):
        return False
    config = sampler.config
    return config.condition == "none" and config.dropout == 0 and config.steps > 0


def flow(
    sampler: TruncatedSampler,
    text: Tensor,
    *,
    noise_scale: float = 0.0,
    generator: torch.Generator | None = None,
    whole: bool = False,
) -> list[Tensor]:
    """Return the trajectory of texts with the same gradients as `TruncatedSampler.trajectory`, and sooner.

    Args:
        sampler: a sampler that `can_flow`.
        text: text embeddings, (n, d).
        noise_scale, generator: as for `TruncatedSampler.trajectory`.
        whole: return [v_{T'}, …, v_0]; otherwise [v_0] alone.
    """
    require_generator(noise_scale, generator)
    kind, wide = text.device.type, sampler.network.x_embedder.weight.dtype
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else wide
    with torch.autocast(kind, enabled=False):
        steps, width = sampler.config.steps, sampler.config.width
        weights = fold(sampler, dtype, attention=steps * len(text) > width)  # fewer rows are less work unfolded
        v = sampler.config.scaled(text.to(wide))
        v = v if sampler.start is None else sampler.start(v)
        noise = v.new_zeros(len(weights.traveled) - 1, *v.shape)
        if noise_scale:
            for z, scale in zip(noise, sampler.schedule.lam[1:steps][::-1], strict=True):
                z.normal_(generator=generator).mul_(noise_scale * float(scale))
        pushed = F.linear(noise, weights.inward[0]) if noise_scale else noise
        layers = [layer for block in weights.blocks for layer in (*block.attn, *block.mlp)]
        no_bias = v.new_zeros(width)
        matrices = [tensor.to(dtype) for layer in ((weights.merged, no_bias), *layers) for tensor in layer]
        parts: Tensor = _Flow.apply(F.linear(v, *weights.inward), pushed, weights.table, *matrices)  # type: ignore[no-untyped-call]
        matrix, bias = weights.outward
        if not whole:
            moved = v + F.linear(parts.sum(dim=0), matrix, weights.traveled[-1] * bias)
            return [(moved + noise.sum(dim=0)).to(text.dtype)]
        noise = torch.cat([noise, noise.new_zeros(1, *v.shape)])
        removed = F.linear(parts.cumsum(dim=0), matrix)
        traveled = torch.tensor(weights.traveled, device=v.device, dtype=wide)[:, None, None]
        path = v + removed + traveled * bias + noise.cumsum(dim=0)
        return [v.to(text.dtype), *path.to(text.dtype)]


class _Flow(torch.autograd.Function):
    """Function from first state (n, d) and folded weights to what the steps remove, χ_t n_t, (T', n, d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pushed: Tensor, table: Tensor, *matrices: Tensor) -> Tensor:
        ctx.save_for_backward(pushed, table, *matrices)
        parts = x.new_empty(len(table), *x.shape)
        length = max(1, _KEPT // _bytes_a_step(x, matrices))
        ctx.starts, ctx.kept = [], None
        for first in range(0, len(table), length):
            steps = range(first, min(first + length, len(table)))
            segment = _Segment(len(x), pushed, table, matrices, steps)
            ctx.starts.append((x, steps))
            x = segment.forward(x, parts)
        if len(ctx.starts) == 1:
            ctx.kept = segment
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_parts: Tensor) -> tuple[Tensor, ...]:
        pushed, table, *matrices = ctx.saved_tensors
        g_x, g_pushed, g_table = torch.zeros_like(g_parts[0]), torch.zeros_like(pushed), torch.zeros_like(table)
        g_matrices: list[Tensor] = []
        for x, steps in reversed(ctx.starts):
            segment, ctx.kept = ctx.kept, None  # its activations become gradients: it serves once
            if segment is None:
                segment = _Segment(len(x), pushed, table, matrices, steps)
                segment.forward(x, torch.empty_like(g_parts))
            g_x = segment.backward(g_parts, g_x, g_pushed, g_table)
            own = segment.gradients()
            g_matrices = [a + b for a, b in zip(g_matrices, own, strict=True)] if g_matrices else own
        return (g_x, g_pushed, g_table, *g_matrices)


def _bytes_a_step(x: Tensor, matrices: Sequence[Tensor]) -> int:
    """Return the size of what a step leaves behind: the inputs and outputs of all layers and LayerNorms."""
    values = sum(sum(matrix.shape) for matrix in matrices if matrix.ndim == 2) + len(matrices) // 3 * x.shape[1]
    return x.element_size() * len(x) * values


class _Layer:
    """Linear layer whose inputs at some steps, and the gradients of its outputs, lie side by side.

    Attributes:
        inputs: (steps, n, in).
        outputs: (steps, n, out); in the backward pass their gradients.
    """

    def __init__(self, steps: int, rows: int, matrix: Tensor, bias: Tensor) -> None:
        self.matrix, self.bias = matrix, bias
        self.inputs = matrix.new_empty(steps, rows, matrix.shape[1])
        self.outputs = matrix.new_empty(steps, rows, matrix.shape[0])

    def forward(self, place: int) -> Tensor:
        """Compute the outputs of a step from its inputs."""
        return torch.addmm(self.bias, self.inputs[place], self.matrix.T, out=self.outputs[place])

    def backward(self, place: int) -> Tensor:
        """Return the gradient of a step's inputs from that of its outputs."""
        return self.outputs[place] @ self.matrix

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of matrix and bias over all steps."""
        return self.outputs.flatten(0, 1).T @ self.inputs.flatten(0, 1), self.outputs.sum(dim=(0, 1))


class _Norm:
    """LayerNorm with a scale and a shift for each step."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, ...]] = []

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor, out: Tensor) -> None:
        """Write the normed input of the next step into `out`."""
        normed, mean, rstd = torch.native_layer_norm(h, h.shape[-1:], scale, shift, LAYER_NORM_EPS)
        out.copy_(normed)
        self._kept.append((h, mean, rstd, scale, shift))

    def backward(self, g_normed: Tensor, g_shift: Tensor, g_scale: Tensor) -> Tensor:
        """Return the gradient of the last step's input, write the others, and forget the step."""
        h, mean, rstd, scale, shift = self._kept.pop()
        g_h, scales, shifts = torch.ops.aten.native_layer_norm_backward(
            g_normed, h, h.shape[-1:], mean, rstd, scale, shift, [True, True, True]
        )
        g_shift.copy_(shifts)
        g_scale.copy_(scales)
        return g_h


class _Branch:
    """Branch of a block: h + gate · f(norm(h)), f the one or two layers of the attention, or those of the MLP.

    `between` writes the input of the second layer, and over the output of the first the derivative.
    """

    def __init__(self, layers: Sequence[_Layer], between: Callable[[Tensor, Tensor], None]) -> None:
        self.layers, self._between, self._norm = layers, between, _Norm()

    def forward(self, place: int, h: Tensor, modulation: Tensor) -> Tensor:
        """Map (n, d) under shift, scale and gate, (3, d), to (n, d)."""
        first, last = self.layers[0], self.layers[-1]
        self._norm.forward(h, modulation[0], modulation[1], first.inputs[place])
        output = first.forward(place)
        if last is not first:
            self._between(output, last.inputs[place])
            output = last.forward(place)
        return torch.addcmul(h, modulation[2], output.to(h.dtype))

    def backward(self, place: int, g: Tensor, modulation: Tensor, g_modulation: Tensor) -> Tensor:
        """Return the gradient of the input, given that of the result, and write that of the modulation."""
        first, last = self.layers[0], self.layers[-1]
        g_modulation[2] = (g * last.outputs[place]).sum(dim=0)
        last.outputs[place] = g * modulation[2]
        if last is not first:
            first.outputs[place] *= last.backward(place)
        return g + self._norm.backward(first.backward(place).to(g.dtype), *g_modulation[:2])


class _Segment:
    """Segment of consecutive steps: their activations, and the passes over them."""

    def __init__(self, rows: int, pushed: Tensor, table: Tensor, matrices: Sequence[Tensor], steps: range) -> None:
        self._pushed, self._table, self._steps = pushed, table, steps
        merged, no_bias, *others = matrices
        last = len(table) - 1  # which leads to no other step
        self._move = _Layer(len(steps) - (steps[-1] == last), rows, merged, no_bias)
        self._layers = [_Layer(len(steps), rows, *pair) for pair in zip(others[::2], others[1::2], strict=True)]
        self._branches, blocks = [], table.shape[1] // 6
        for block in range(blocks):
            *attn, fc1, fc2 = self._layers[block * len(self._layers) // blocks :][: len(self._layers) // blocks]
            self._branches += [_Branch(attn, _as_it_is), _Branch([fc1, fc2], _gelu)]
        self._norm = _Norm()

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        """Run the steps from their first state, write what they remove into `parts`, and return the next state."""
        for place, step in enumerate(self._steps):
            *modulations, (shift, scale, between) = self._table[step].unflatten(0, (-1, 3))
            h = x
            for branch, modulation in zip(self._branches, modulations, strict=True):
                h = branch.forward(place, h, modulation)
            self._norm.forward(h, shift, scale, parts[step])
            if place < len(self._move.inputs):
                self._move.inputs[place] = parts[step]
                x = x + between + self._pushed[step] + self._move.forward(place).to(x.dtype)
        return x

    def backward(self, g_parts: Tensor, g_x: Tensor, g_pushed: Tensor, g_table: Tensor) -> Tensor:
        """Return the gradient of the first state, given that of the next, and write the others."""
        for place, step in reversed(list(enumerate(self._steps))):
            *modulations, _ = self._table[step].unflatten(0, (-1, 3))
            *g_modulations, (g_shift, g_scale, g_between) = g_table[step].unflatten(0, (-1, 3))
            g_part = g_parts[step]
            if place < len(self._move.inputs):
                self._move.outputs[place], g_pushed[step] = g_x, g_x
                torch.sum(g_x, dim=0, out=g_between)
                g_part = g_part + self._move.backward(place).to(g_x.dtype)
            g = self._norm.backward(g_part, g_shift, g_scale)
            for number in reversed(range(len(self._branches))):
                g = self._branches[number].backward(place, g, modulations[number], g_modulations[number])
            g_x = g_x + g
        return g_x

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the matrices and biases."""
        return [tensor for layer in (self._move, *self._layers) for tensor in layer.gradients()]


def _as_it_is(x: Tensor, out: Tensor) -> None:
    """Write x into `out`, and 1, its derivative, over x."""
    out.copy_(x)
    x.fill_(1)


def _gelu(x: Tensor, out: Tensor) -> None:
    """Write GELU(x), approximated by tanh, into `out`, and its derivative over x, both (n, h).

    Passes over rows that stay in the cache, around one sigmoid: torch's kernels compute a slow tanh twice. A
    graphics card takes all rows at once.
    """
    c1 = torch.tensor(_C1, dtype=torch.promote_types(x.dtype, torch.float32))
    length = _CACHED if x.device.type == "cpu" else len(x)
    for rows, target in zip(x.split(length), out.split(length), strict=True):
        value = rows.to(c1.dtype)
        square = value * value
        sigma = torch.add(c1, square, alpha=_C3).mul_(value).sigmoid_()
        value = value * sigma
        target.copy_(value)
        value *= torch.add(c1, square, alpha=3 * _C3, out=square)
        rows.copy_(value.addcmul_(value, sigma, value=-1).add_(sigma))
