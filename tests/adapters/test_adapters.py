"""Adapters from the outside: the protocol, the fits against slow references, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dits_adapter.adapters import (
    AffineAdapter,
    AffineConfig,
    DITSAdapter,
    MLPAdapter,
    MLPConfig,
    mean_shift,
    procrustes,
    ridge,
)
from dits_adapter.adapters.base import interpolate_on_sphere
from dits_adapter.errors import InputError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.sampler.network import Start

WIDTH = 12


def random_dits(steps: int = 10) -> DITSAdapter:
    adapter = DITSAdapter(SamplerConfig(width=WIDTH, steps=steps, depth=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return adapter.eval()


def random_mlp(start: Start = "text") -> MLPAdapter:
    adapter = MLPAdapter(MLPConfig(width=WIDTH, depth=2, start=start))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return adapter.eval()


def fitted(name: str) -> AffineAdapter:
    rng = np.random.default_rng(0)
    text, video = rng.normal(size=(50, WIDTH)), rng.normal(size=(50, WIDTH)) + 1
    return {"mean-shift": mean_shift, "procrustes": procrustes}[name](text, video)


ALL = {
    "dits": random_dits,
    "mlp": random_mlp,
    "mlp from a map": lambda: random_mlp("affine"),
    "mean-shift": lambda: fitted("mean-shift"),
    "procrustes": lambda: fitted("procrustes"),
}


@pytest.mark.parametrize("name", ALL)
class TestProtocol:
    def test_unit_vectors_of_the_input_type(self, name):
        adapter = ALL[name]()
        array = np.random.default_rng(1).normal(size=(5, WIDTH))
        for vectors in (array, array.astype(np.float32), array.astype(np.float16), torch.tensor(array)):
            adapted = adapter.adapt(vectors)
            assert type(adapted) is type(vectors)
            assert adapted.dtype == vectors.dtype
            np.testing.assert_allclose(np.linalg.norm(np.asarray(adapted, np.float64), axis=1), 1, atol=2e-3)

    def test_strength_zero_is_the_input_bit_for_bit(self, name):
        vectors = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
        assert np.array_equal(ALL[name]().adapt(vectors, strength=0), vectors)

    def test_strength_walks_the_great_circle(self, name):
        adapter = ALL[name]()
        vectors = np.random.default_rng(2).normal(size=(4, WIDTH))
        plain = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        full = np.arccos(np.sum(plain * adapter.adapt(vectors), axis=1))
        part = np.arccos(np.sum(plain * adapter.adapt(vectors, strength=0.3), axis=1))
        np.testing.assert_allclose(part, 0.3 * full, atol=1e-6)

    def test_inference_form_agrees(self, name):
        adapter = ALL[name]()
        vectors = np.random.default_rng(3).normal(size=(6, WIDTH))
        ready = adapter.for_inference()
        np.testing.assert_allclose(ready.adapt(vectors), adapter.adapt(vectors), atol=1e-6)
        assert np.array_equal(ready.for_inference().adapt(vectors), ready.adapt(vectors))

    def test_ignores_the_length_of_its_input(self, name):
        adapter = ALL[name]()
        vectors = np.random.default_rng(4).normal(size=(3, WIDTH))
        np.testing.assert_allclose(adapter.adapt(7 * vectors), adapter.adapt(vectors), atol=1e-6)

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            (np.zeros((2, WIDTH + 1)), rf"\(n, {WIDTH}\), got \(2, {WIDTH + 1}\)"),
            (np.zeros(WIDTH), "expected vectors of shape"),
            (np.zeros((2, WIDTH), int), "floating-point"),
            (np.where(np.eye(3, WIDTH, 2) > 0, np.nan, 1.0), "row 0 holds NaN"),
            (np.vstack([np.ones(WIDTH), np.zeros(WIDTH)]), "row 1 is the zero vector"),
        ],
    )
    def test_bad_vectors_are_refused_by_row(self, name, vectors, message):
        with pytest.raises(InputError, match=message):
            ALL[name]().adapt(vectors)

    def test_bad_strength_is_refused(self, name):
        with pytest.raises(InputError, match=r"strength is 1\.5"):
            ALL[name]().adapt(np.ones((1, WIDTH)), strength=1.5)


def test_no_steps_is_the_input_bit_for_bit():
    vectors = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
    assert np.array_equal(random_dits().with_steps(0).adapt(vectors), vectors)


def test_the_inference_form_has_one_number_of_steps():
    with pytest.raises(ValueError, match="one T'"):
        random_dits().for_inference().with_steps(3)


def test_fresh_adapters_are_the_identity():
    vectors = np.random.default_rng(1).normal(size=(5, WIDTH))
    plain = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for adapter in (
        DITSAdapter(SamplerConfig(width=WIDTH)),
        MLPAdapter(MLPConfig(width=WIDTH)),
        MLPAdapter(MLPConfig(width=WIDTH, start="affine")),
        AffineAdapter(AffineConfig(width=WIDTH, method="contrastive-linear")),
    ):
        np.testing.assert_allclose(adapter.adapt(vectors), plain, atol=1e-12)


@pytest.mark.parametrize("start", ["text", "affine"])
def test_the_mlp_against_its_formula(start):
    adapter = random_mlp(start).double()
    weights = {name: value.detach().numpy() for name, value in adapter.state_dict().items()}
    text = np.random.default_rng(5).normal(size=(4, WIDTH))
    x = text / np.linalg.norm(text, axis=1, keepdims=True)
    if start == "affine":
        x = x @ weights["start.weight"].T + weights["start.bias"]
    for i in range(2):
        normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        hidden = normal @ weights[f"layers.{i}.fc1.weight"].T + weights[f"layers.{i}.fc1.bias"]
        gelu = hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3))) / 2
        x = x + gelu @ weights[f"layers.{i}.fc2.weight"].T + weights[f"layers.{i}.fc2.bias"]
    np.testing.assert_allclose(adapter(torch.tensor(text)).detach().numpy(), x, atol=1e-12)


def test_noise_only_in_training():
    adapter = DITSAdapter(SamplerConfig(width=WIDTH, noise_scale=1.0))
    adapter.noise = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.ones(2, WIDTH), dim=1)
    assert not torch.allclose(adapter.train()(text), text)
    torch.testing.assert_close(adapter.eval()(text), text)


def pairs_of(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(n, WIDTH)) + rng.normal(size=WIDTH)
    return text, text @ rng.normal(size=(WIDTH, WIDTH)) / 4 + rng.normal(size=WIDTH)


def test_mean_shift_moves_the_mean_of_the_texts_onto_that_of_the_videos():
    text, video = pairs_of(0, 40)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video)]
    moved = mean_shift(text, video)(torch.tensor(text)).detach().numpy()
    np.testing.assert_allclose(moved.mean(0), unit[1].mean(0), atol=1e-6)


def test_procrustes_recovers_a_rotation():
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    text = rng.normal(size=(60, WIDTH))
    adapter = procrustes(text, text @ rotation)
    np.testing.assert_allclose(adapter.weight.detach().numpy(), rotation.T, atol=1e-5)
    np.testing.assert_allclose(adapter.bias.detach().numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, WIDTH // 2])
def test_of_all_rotations_that_fit_few_pairs_procrustes_is_nearest_to_the_identity(n):
    text, video = pairs_of(n, n)
    weight = procrustes(text, video).weight.detach().double().numpy()
    t, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video))
    left, _, right = np.linalg.svd((t - t.mean(0)).T @ (v - v.mean(0)) + 1e-7 * np.eye(WIDTH))
    np.testing.assert_allclose(weight, (left @ right).T, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 30), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_ridge_minimizes_what_its_docstring_says(seed, n, penalty):
    text, video = pairs_of(seed, n)
    adapter = ridge(text, video, penalty)
    t, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video))

    def objective(weight, bias):
        return np.sum((t @ weight.T + bias - v) ** 2) + n * penalty * np.sum(weight**2)

    weight, bias = adapter.weight.detach().double().numpy(), adapter.bias.detach().double().numpy()
    best = objective(weight, bias)
    rng = np.random.default_rng(seed)
    for size in (1e-1, 1e-3):
        for _ in range(5):
            other = objective(
                weight + size * rng.normal(size=weight.shape), bias + size * rng.normal(size=bias.shape)
            )
            assert other > best - 1e-6 * abs(best)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([0.0, 1e-9, 1e-4, 0.3, 1.5, 3.0]))
def test_interpolation_against_slerp_in_the_plane(seed, strength, angle):
    rng = np.random.default_rng(seed)
    first, second = np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    end = math.cos(angle) * first + math.sin(angle) * second
    expected = math.cos(strength * angle) * first + math.sin(strength * angle) * second
    moved = interpolate_on_sphere(torch.tensor(first[None]), torch.tensor(end[None]), strength)[0]
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-7)
