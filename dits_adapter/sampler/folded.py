"""The alignment network as inference runs it: half the weights, the same function.

Two facts make the fold exact. With one token, attention is W_o(W_v x + b_v) + b_o: one matrix and a bias. Without
a condition, shift, scale and gate depend on the timestep alone: a table with one row a step. At d = 512, N = 4
this leaves 9.97 of 20.35 million weights to read for every step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dits_adapter.sampler.network import AlignmentNetwork, DiTBlock, Mlp, layer_norm


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer with a copy of the given weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


class FoldedBlock(nn.Module):
    """A `DiTBlock` whose attention is one linear map and whose modulation comes from outside."""

    def __init__(self, block: DiTBlock) -> None:
        super().__init__()
        width = block.attn.proj.in_features
        out = block.attn.proj.weight.double()
        value_weight, value_bias = block.attn.qkv.weight[2 * width :], block.attn.qkv.bias[2 * width :]
        dtype = value_weight.dtype
        self.attn = _linear(
            (out @ value_weight.double()).to(dtype),
            (out @ value_bias.double() + block.attn.proj.bias.double()).to(dtype),
        )
        self.mlp = Mlp(width, block.mlp.fc1.out_features).to(value_weight)
        self.mlp.load_state_dict(block.mlp.state_dict())

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map (n, d) under the modulation (6, d), whose scales have 1 added, to (n, d)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.unbind()
        x = torch.addcmul(x, gate_a, self.attn(torch.addcmul(shift_a, layer_norm(x), scale_a)))
        return torch.addcmul(x, gate_m, self.mlp(torch.addcmul(shift_m, layer_norm(x), scale_m)))


class FoldedNetwork(nn.Module):
    """An `AlignmentNetwork` folded for the timesteps 1 … `timesteps`; called like the network itself.

    Its weights are copies, computed in float64 and without gradient: fold again after training.

    Args:
        network: an unconditioned network.
        timesteps: number of rows of the modulation table.

    Raises:
        ValueError: the network is conditioned, so that its modulation is no table.
    """

    blocks_table: Tensor
    final_table: Tensor

    @torch.no_grad()
    def __init__(self, network: AlignmentNetwork, timesteps: int) -> None:
        super().__init__()
        if network.condition != "none":
            raise ValueError(f"a network conditioned on {network.condition} cannot be folded")
        self.x_embedder = _linear(network.x_embedder.weight, network.x_embedder.bias)
        self.blocks = nn.ModuleList(FoldedBlock(block) for block in network.blocks)  # type: ignore[arg-type]
        self.linear = _linear(network.final_layer.linear.weight, network.final_layer.linear.bias)

        c = network.t_embedder(torch.arange(1, timesteps + 1, device=network.x_embedder.weight.device))
        blocks = [block.adaLN_modulation(c).unflatten(1, (6, -1)) for block in network.blocks]  # type: ignore[operator]
        blocks_table = torch.stack(blocks, dim=1) if blocks else c.new_empty(timesteps, 0, 6, c.shape[1])
        blocks_table[:, :, [1, 4]] += 1
        final_table = network.final_layer.adaLN_modulation(c).unflatten(1, (2, -1))
        final_table[:, 1] += 1
        self.register_buffer("blocks_table", blocks_table)
        self.register_buffer("final_table", final_table)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, t: int) -> Tensor:
        """Predict ε for embeddings (n, d) at timestep t, counted from 1: (n, d)."""
        x = self.x_embedder(x)
        for block, modulation in zip(self.blocks, self.blocks_table[t - 1], strict=True):
            x = block(x, modulation)
        shift, scale = self.final_table[t - 1]
        return self.linear(torch.addcmul(shift, layer_norm(x), scale))
