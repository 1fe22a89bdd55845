"""The alignment network and the sampler against slow, obvious references; the fold against both."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dits_adapter.artifact.artifact import Artifact
from dits_adapter.sampler import AlignmentNetwork, FoldedSampler, NoiseSchedule, SamplerConfig, TruncatedSampler


def randomize(module: nn.Module, seed: int, std: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std)


def reference_network(weights: dict[str, torch.Tensor], x: torch.Tensor, t: int, depth: int, heads: int):
    """DiT as it is published, with full multi-head attention over a sequence of one token."""

    def linear(name, value):
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(value):
        mean = value.mean(-1, keepdim=True)
        return (value - mean) / ((value - mean).square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def silu(value):
        return value / (1 + torch.exp(-value))

    n, width = x.shape
    frequencies = [10_000 ** (-i / 128) for i in range(128)]
    embedding = [math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies]
    c = torch.tensor([embedding], dtype=x.dtype)
    c = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", c)))
    x = linear("x_embedder", x)
    for i in range(depth):
        parts = linear(f"blocks.{i}.adaLN_modulation.1", silu(c)).chunk(6, dim=1)
        h = (norm(x) * (1 + parts[1]) + parts[0]).reshape(n, 1, width)
        q, k, v = linear(f"blocks.{i}.attn.qkv", h).reshape(n, 1, 3, heads, width // heads).unbind(2)
        logits = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(width // heads)
        attended = torch.einsum("nhqk,nkhd->nqhd", logits.softmax(-1), v).reshape(n, width)
        x = x + parts[2] * linear(f"blocks.{i}.attn.proj", attended)
        h = linear(f"blocks.{i}.mlp.fc1", norm(x) * (1 + parts[4]) + parts[3])
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + parts[5] * linear(f"blocks.{i}.mlp.fc2", h)
    shift, scale = linear("final_layer.adaLN_modulation.1", silu(c)).chunk(2, dim=1)
    return linear("final_layer.linear", norm(x) * (1 + scale) + shift)


def test_parameter_count_and_dit_names():
    network = AlignmentNetwork(512)
    assert sum(p.numel() for p in network.parameters()) == 20_349_952
    folded = FoldedSampler(TruncatedSampler(SamplerConfig(width=512), network))
    matrices = sum(p.numel() for p in folded.parameters() if p.ndim == 2)
    assert matrices == (3 + 4 * 9) * 512**2  # of which a step reads 37
    names = set(network.state_dict())
    block = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"}
    expected = {f"blocks.{i}.{name}" for i in range(4) for name in block}
    expected |= {"x_embedder", "t_embedder.mlp.0", "t_embedder.mlp.2"}
    expected |= {"final_layer.linear", "final_layer.adaLN_modulation.1"}
    assert names == {f"{name}.{kind}" for name in expected for kind in ("weight", "bias")}


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("t", [1, 7])
def test_network_is_a_dit_whatever_the_heads(heads, t):
    network = AlignmentNetwork(16, depth=3).double()
    randomize(network, seed=heads, std=0.3)
    x = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = reference_network(network.state_dict(), x, t, depth=3, heads=heads)
    torch.testing.assert_close(network(x, t), expected, rtol=1e-10, atol=1e-10)


def test_query_and_key_weights_get_exactly_zero_gradient():
    network = AlignmentNetwork(16, depth=2)
    randomize(network, seed=0)
    network(torch.randn(3, 16), 2).square().sum().backward()
    for block in network.blocks:
        gradient = block.attn.qkv.weight.grad
        assert torch.all(gradient[:32] == 0)
        assert torch.any(gradient[32:] != 0)


@pytest.mark.parametrize("condition", ["none", "text", "video", "both"])
def test_starts_as_the_identity(condition):
    sampler = TruncatedSampler(SamplerConfig(width=24, condition=condition, input="raw"))
    text, video = torch.randn(4, 24), torch.randn(4, 24)
    assert torch.equal(sampler(text, video=video), text)


@pytest.mark.parametrize(("condition", "seen"), [("text", "text"), ("video", "video"), ("both", "text video")])
def test_conditions_reach_the_output(condition, seen):
    sampler = TruncatedSampler(SamplerConfig(width=24, condition=condition, steps=1, input="raw"))
    randomize(sampler, seed=3)
    x, text, video = (torch.randn(2, 24) for _ in range(3))
    base = sampler.network(x, 1, text=text, video=video)
    for name, other in (
        ("text", sampler.network(x, 1, text=text + 1, video=video)),
        ("video", sampler.network(x, 1, text=text, video=video + 1)),
    ):
        assert torch.equal(base, other) == (name not in seen)
    with pytest.raises(ValueError, match="cannot be folded"):
        FoldedSampler(sampler)


def test_affine_start_is_where_the_flow_begins():
    sampler = TruncatedSampler(SamplerConfig(width=8, start="affine", input="raw"))
    text = torch.randn(3, 8)
    torch.testing.assert_close(sampler(text), text)
    with torch.no_grad():
        sampler.start.weight.mul_(2)
        sampler.start.bias.add_(1)
    torch.testing.assert_close(sampler.trajectory(text)[0], 2 * text + 1)
    torch.testing.assert_close(sampler(text), 2 * text + 1)  # the network is still zero
    assert torch.equal(sampler(text, steps=0), text)


def test_dropout_only_in_training():
    sampler = TruncatedSampler(SamplerConfig(width=8, dropout=0.5))
    randomize(sampler, seed=0)
    text = torch.randn(3, 8)
    assert not torch.equal(sampler.train()(text), sampler(text))
    assert torch.equal(sampler.eval()(text), sampler(text))


def test_missing_condition_is_named():
    sampler = TruncatedSampler(SamplerConfig(width=8, condition="video"))
    with pytest.raises(ValueError, match="conditioned on the video"):
        sampler(torch.randn(1, 8))


settings_of_the_fold = {
    "width": st.sampled_from([4, 16, 40]),
    "depth": st.integers(0, 4),
    "timesteps": st.integers(1, 14),
    "beta_start": st.floats(0.05, 0.3),
    "beta_end": st.floats(0.3, 0.99),
    "mlp_ratio": st.sampled_from([0.5, 2.0, 4.0]),
    "input": st.sampled_from(["raw", "unit"]),
    "input_scale": st.sampled_from([1.0, 7.5]),
    "start": st.sampled_from(["text", "affine"]),
}


def assert_folds(sampler: TruncatedSampler, text: torch.Tensor) -> None:
    """The fold of a float64 sampler takes the path of the sampler, in float64 and in float32."""
    path = torch.stack(sampler.trajectory(text)).detach()
    scale = max(1.0, float(path.abs().max()))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        folded = FoldedSampler(copy.deepcopy(sampler).to(dtype))
        found = torch.stack(folded.trajectory(text.to(dtype)))
        assert found.dtype == dtype
        assert float((found - path).abs().max()) <= tolerance * scale
        assert float((folded(text.to(dtype)) - path[-1]).abs().max()) <= tolerance * scale


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(settings_of_the_fold), st.integers(0, 14), st.integers(0, 2**32 - 1), st.integers(1, 9)
)
def test_fold_is_exact(options, steps, seed, rows):
    config = SamplerConfig(steps=min(steps, options["timesteps"]), **options)
    sampler = TruncatedSampler(config).double()
    randomize(sampler, seed, std=0.15)
    text = torch.randn(rows, config.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_folds(sampler, text)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_fold_is_exact_on_trained_weights(steps):
    artifact = Artifact.load("demo-dits")
    sampler = artifact.adapter.with_steps(steps).sampler.double()
    text = torch.tensor(artifact.space.text.canaries, dtype=torch.float64)
    assert_folds(sampler, text)
    unit = text / text.norm(dim=1, keepdim=True)
    path = [unit @ sampler.start.weight.detach().T + sampler.start.bias.detach()]
    weights = {name: tensor.detach() for name, tensor in sampler.network.state_dict().items()}
    for t in range(steps, 0, -1):  # Eq. 8 on the DiT as it is published
        noise = reference_network(weights, path[-1], t, sampler.config.depth, heads=16)
        path.append(path[-1] - sampler.schedule.chi[t - 1] * noise)
    torch.testing.assert_close(
        torch.stack(FoldedSampler(sampler).trajectory(text)), torch.stack(path), rtol=0, atol=1e-11
    )


@settings(max_examples=20)
@given(st.fixed_dictionaries(settings_of_the_fold), st.integers(0, 14), st.integers(1, 9))
def test_the_matrices_of_the_fold_are_counted(options, steps, rows):
    config = SamplerConfig(steps=min(steps, options["timesteps"]), **options)
    folded = FoldedSampler(TruncatedSampler(config))
    with FlopCounterMode(display=False) as counter:
        folded(torch.randn(rows, config.width))
    hidden = int(config.width * config.mlp_ratio) / config.width  # what a ratio is rounded to
    exact = config.model_copy(update={"mlp_ratio": hidden})
    assert counter.get_total_flops() == pytest.approx(2 * rows * config.width**2 * exact.matrices)


def test_fold_starts_as_the_identity_bit_for_bit():
    text = torch.randn(3, 24)
    assert torch.equal(FoldedSampler(TruncatedSampler(SamplerConfig(width=24, input="raw")))(text), text)


def slow_sample(sampler: TruncatedSampler, text: torch.Tensor, noise: list[torch.Tensor], scale: float):
    """Eq. 8 written out, one row at a time."""
    schedule = NoiseSchedule.linear(10, 0.1, 0.99)
    rows = []
    for row in range(len(text)):
        v = text[row : row + 1]
        for step, t in enumerate(range(sampler.config.steps, 0, -1)):
            v = v - schedule.chi[t - 1] * sampler.network(v, t)
            if t > 1:
                v = v + scale * schedule.lam[t - 1] * noise[step][row : row + 1]
        rows.append(v)
    return torch.cat(rows)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_equation_8_with_and_without_noise(steps):
    sampler = TruncatedSampler(SamplerConfig(width=16, steps=steps, input="raw")).double()
    randomize(sampler, seed=1)
    text = torch.randn(6, 16, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    noise = [torch.empty_like(text).normal_(generator=generator) for _ in range(steps - 1)]
    quiet = slow_sample(sampler, text, noise, 0.0) if noise else sampler(text)
    torch.testing.assert_close(sampler(text), quiet, rtol=1e-11, atol=1e-11)
    noisy = sampler(text, noise_scale=0.5, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(noisy, slow_sample(sampler, text, noise, 0.5), rtol=1e-11, atol=1e-11)


def test_accumulated_noise_has_the_norm_that_the_method_states():
    sampler = TruncatedSampler(SamplerConfig(width=512))
    text = torch.zeros(400, 512)
    moved = sampler(text, noise_scale=1.0, generator=torch.Generator().manual_seed(0))
    assert float(moved.square().sum(1).mean().sqrt()) == pytest.approx(52, abs=0.5)


def test_noise_is_reproducible_and_never_implicit():
    sampler = TruncatedSampler(SamplerConfig(width=8))
    text = torch.randn(3, 8)
    with pytest.raises(ValueError, match="generator"):
        sampler(text, noise_scale=1.0)
    draws = [sampler(text, noise_scale=1.0, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_trajectory_starts_at_the_text_and_ends_at_the_result():
    sampler = TruncatedSampler(SamplerConfig(width=8, steps=7, input="raw"))
    randomize(sampler, seed=0)
    text = torch.randn(3, 8)
    path = sampler.trajectory(text)
    assert len(path) == 8
    assert torch.equal(path[0], text)
    assert torch.equal(path[-1], sampler(text))
    assert torch.equal(sampler.trajectory(text, steps=0)[0], text)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_any_float_dtype_and_batch_size(dtype, rows):
    sampler = TruncatedSampler(SamplerConfig(width=16))
    randomize(sampler, seed=0)
    text = torch.randn(rows, 16).to(dtype)
    moved = FoldedSampler(sampler)(text)
    assert moved.shape == (rows, 16)
    assert moved.dtype == dtype
    torch.testing.assert_close(moved.float(), sampler(text.float()).to(dtype).float(), rtol=1e-2, atol=1e-2)


def test_rows_do_not_depend_on_their_batch():
    sampler = FoldedSampler(TruncatedSampler(SamplerConfig(width=32)))
    text = torch.randn(17, 32)
    alone = torch.cat([sampler(text[i : i + 1]) for i in range(17)])
    torch.testing.assert_close(sampler(text), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 11}, "exceeds timesteps"),
        ({"beta_start": 0.5, "beta_end": 0.2}, "lies below beta_start"),
        ({"beta_end": 1.0}, "beta_end"),
        ({"noise_scale": -1}, "noise_scale"),
        ({"typo": 1}, "typo"),
    ],
)
def test_invalid_configs_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        SamplerConfig(width=8, **options)


def test_steps_outside_the_schedule_are_refused():
    with pytest.raises(ValueError, match="lies outside 0 … T=10"):
        TruncatedSampler(SamplerConfig(width=8))(torch.randn(1, 8), steps=11)


def test_deterministic_initialization():
    def weights():
        torch.manual_seed(3)
        return AlignmentNetwork(8).state_dict()

    first, second = weights(), weights()
    assert all(np.array_equal(first[name], second[name]) for name in first)
