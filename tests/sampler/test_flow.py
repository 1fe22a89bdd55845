"""The flow in training against the faithful sampler, under autograd: values and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dits_adapter.adapters import DITSAdapter
from dits_adapter.errors import InputError
from dits_adapter.sampler import SamplerConfig, TruncatedSampler, _flow
from dits_adapter.sampler._flow import can_flow, flow
from tests.sampler.test_sampler import randomize

ROWS = 5


def sampler_of(**options) -> TruncatedSampler:
    sampler = TruncatedSampler(SamplerConfig(**{"width": 8, "timesteps": 6, "steps": 4, "depth": 2, **options}))
    randomize(sampler.double(), seed=1, std=0.3)
    return sampler


def gradients(sampler: TruncatedSampler, text: torch.Tensor, path: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients of a loss in which every component of every point has a weight of its own."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(point.shape, generator=generator, dtype=point.dtype) for point in path]
    loss = sum((weight * (point + point**2)).sum() for weight, point in zip(weights, path, strict=True))
    names, leaves = ["text"], [text]
    for name, parameter in sampler.named_parameters():
        names.append(name)
        leaves.append(parameter)
    found = torch.autograd.grad(loss, leaves)
    return dict(zip(names, found, strict=True))


def assert_equal(sampler: TruncatedSampler, noise_scale: float, whole: bool) -> None:
    text = torch.randn(ROWS, sampler.config.width, dtype=torch.float64).requires_grad_()

    def noise():
        return {"noise_scale": noise_scale, "generator": torch.Generator().manual_seed(3)}

    faithful = sampler.trajectory(text, **noise())[0 if whole else -1 :]
    fast = flow(sampler, text, **noise(), whole=whole)
    torch.testing.assert_close(fast, faithful, rtol=1e-10, atol=1e-10)
    expected, found = gradients(sampler, text, faithful), gradients(sampler, text, fast)
    assert len(expected) > 2
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=25)
@given(
    st.fixed_dictionaries(
        {
            "steps": st.integers(1, 6),
            "depth": st.integers(0, 3),
            "mlp_ratio": st.sampled_from([0.5, 4.0]),
            "start": st.sampled_from(["text", "affine"]),
            "input": st.sampled_from(["raw", "unit"]),
        }
    ),
    st.sampled_from([0.0, 0.7]),
    st.booleans(),
)
def test_values_and_gradients_are_those_of_the_faithful_sampler(options, noise_scale, whole):
    assert_equal(sampler_of(**options), noise_scale, whole)


@pytest.mark.parametrize("steps_kept", [1, 3])
def test_steps_that_are_computed_again_change_nothing(steps_kept, monkeypatch):
    sampler = sampler_of(steps=6)
    one_step = 8 * ROWS * (2 * (8 + 8 + 2 * (8 + 32)) + 2 * 8 + 6 * 8)
    monkeypatch.setattr(_flow, "_KEPT", steps_kept * one_step)
    assert_equal(sampler, 0.7, whole=True)


def test_noise_is_never_implicit():
    with pytest.raises(InputError, match="noise needs a generator"):
        flow(sampler_of(), torch.randn(ROWS, 8), noise_scale=1.0)


def test_a_graph_serves_twice():
    sampler = sampler_of()
    text = torch.randn(ROWS, 8, dtype=torch.float64, requires_grad=True)
    (moved,) = flow(sampler, text)
    first = torch.autograd.grad(moved.sum(), text, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(moved.sum(), text))


def test_unused_weights_get_gradients_of_exactly_zero():
    sampler = sampler_of()
    flow(sampler, torch.randn(ROWS, 8, dtype=torch.float64))[0].square().sum().backward()
    for block in sampler.network.blocks:
        assert torch.all(block.attn.qkv.weight.grad[:16] == 0)
        assert torch.any(block.attn.qkv.weight.grad[16:] != 0)


def test_bfloat16_is_nearer_to_float64_than_autocast_on_the_faithful_sampler():
    sampler = sampler_of(width=64, depth=4, timesteps=10, steps=10, start="affine")
    text = torch.randn(64, 64, dtype=torch.float64).requires_grad_()
    exact = gradients(sampler, text, sampler.trajectory(text)[-1:])
    sampler.float()
    single = text.detach().float().requires_grad_()

    def error(run):
        with torch.autocast("cpu", torch.bfloat16):
            path = run()
        found = gradients(sampler, single, [path[-1].double()])
        norms = [(found[name] - gradient).norm() / gradient.norm() for name, gradient in exact.items()]
        return float(torch.stack(norms).mean())

    fast, faithful = error(lambda: flow(sampler, single)), error(lambda: sampler.trajectory(single))
    assert fast < faithful < 0.1


@pytest.mark.parametrize(
    ("options", "taken"),
    [({}, True), ({"steps": 0}, False), ({"dropout": 0.1}, False), ({"condition": "text"}, False)],
)
def test_training_takes_the_flow_where_it_can(options, taken, monkeypatch):
    calls = []
    monkeypatch.setattr("dits_adapter.adapters.dits.flow", lambda *a, **k: calls.append(1) or flow(*a, **k))
    sampler = sampler_of(**options)
    adapter = DITSAdapter(sampler.config, sampler)
    text = torch.randn(ROWS, 8, dtype=torch.float64)
    assert can_flow(sampler) == taken
    adapter.eval()(text)
    assert not calls
    adapter.train()(text)
    assert bool(calls) == taken
