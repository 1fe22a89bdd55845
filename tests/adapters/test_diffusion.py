"""Vanilla diffusion against the closed forms of Gaussians; the fixed prior; adapters that see the video."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from benchmarks.leak import assert_blind
from dits_adapter.adapters import (
    Adapter,
    DiffusionAdapter,
    DiffusionConfig,
    DITSAdapter,
    FixedPriorAdapter,
    FixedPriorConfig,
)
from dits_adapter.errors import InputError
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.sampler import SamplerConfig

WIDTH = 8


def randomized(adapter: Adapter, std: float = 0.2) -> Adapter:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=std, generator=generator)
    return adapter.eval()


def diffusion(**fields: object) -> DiffusionAdapter:
    return DiffusionAdapter(DiffusionConfig.model_validate({"width": WIDTH, "depth": 1, **fields}))


def texts(n: int = 5) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1)) * 7


class Network(nn.Module):
    """Stands in for the alignment network: ε as a function of (√d δ_t, t)."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.x_embedder = nn.Linear(1, 1).double()  # says the precision

    def forward(self, x, t, **conditions):
        self.conditions = conditions
        return self.function(x, t)


@given(
    start=st.floats(0.001, 0.3),
    span=st.floats(0, 0.69),
    steps=st.integers(2, 30),
    data=st.data(),
    seed=st.integers(0, 999),
)
def test_with_the_true_noise_a_step_is_the_mean_of_the_posterior(start, span, steps, data, seed):
    """q(δ_{t−1} | δ_t, δ_0) is Gaussian; its mean by Bayes' rule, not by way of the noise."""
    adapter = diffusion(timesteps=steps, beta_start=start, beta_end=start + span)
    t = data.draw(st.integers(2, steps))
    schedule = adapter.schedule
    alpha, beta = schedule.alpha[t - 1], schedule.beta[t - 1]
    bar, bar_before = schedule.alpha_bar[t - 1], schedule.alpha_bar[t - 2]
    rng = np.random.default_rng(seed)
    gap, noise = rng.normal(size=(2, 3, WIDTH))
    mixed = math.sqrt(bar) * gap + math.sqrt(1 - bar) * noise
    # Precisions of δ_{t−1} ~ N(√ᾱ_{t−1} δ_0, 1 − ᾱ_{t−1}) and of δ_t ~ N(√α δ_{t−1}, β) add up.
    precision = 1 / (1 - bar_before) + alpha / beta
    mean = (math.sqrt(bar_before) * gap / (1 - bar_before) + math.sqrt(alpha) * mixed / beta) / precision
    found = adapter.step(torch.tensor(mixed), torch.tensor(noise), t)
    np.testing.assert_allclose(found, mean, rtol=1e-7, atol=1e-9)


def test_the_first_step_with_the_true_noise_is_the_gap():
    adapter = diffusion()
    gap, noise = torch.randn(2, 3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bar = adapter.schedule.alpha_bar[0]
    torch.testing.assert_close(adapter.step(math.sqrt(bar) * gap + math.sqrt(1 - bar) * noise, noise, 1), gap)


def test_with_the_best_denoiser_of_a_gaussian_gap_the_draws_are_the_chain_in_closed_form():
    mean, spread, n = 3.0, 0.5, 40_000
    adapter = diffusion(timesteps=20, beta_start=0.02, beta_end=0.3)
    schedule = adapter.schedule

    def gain(t):  # E[ε | δ_t] = gain (δ_t − √ᾱ mean)
        bar = schedule.alpha_bar[t - 1]
        return math.sqrt(1 - bar) / (bar * spread**2 + 1 - bar)

    adapter.network = Network(lambda x, t: gain(t) * (x - math.sqrt(schedule.alpha_bar[t - 1]) * mean))
    adapter.noise = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.ones(n, WIDTH, dtype=torch.float64), dim=1)
    with torch.no_grad():
        gaps = (adapter.train()(text) - text) * math.sqrt(WIDTH)
    # The chain is linear in Gaussians: follow mean and variance through it.
    m, v = 0.0, 1.0
    for t in range(20, 0, -1):
        bar, alpha, beta = schedule.alpha_bar[t - 1], schedule.alpha[t - 1], schedule.beta[t - 1]
        shrink = (1 - beta / math.sqrt(1 - bar) * gain(t)) / math.sqrt(alpha)
        m = shrink * m + beta / math.sqrt(1 - bar) * gain(t) * math.sqrt(bar) * mean / math.sqrt(alpha)
        v = shrink**2 * v + (beta if t > 1 else 0)
    assert m == pytest.approx(mean, abs=0.15)  # ᾱ_T is not quite 0
    assert gaps.mean().item() == pytest.approx(m, abs=0.01)
    assert gaps.var().item() == pytest.approx(v, rel=0.02)


@pytest.mark.parametrize(("objective", "expected"), [("l2", 1.0), ("l1", math.sqrt(2 / math.pi))])
def test_the_gap_loss_of_knowing_nothing_and_of_knowing_all(objective, expected):
    text, video = texts(4000), texts(4000).flip(0)
    adapter = diffusion(objective=objective)
    adapter.noise = torch.Generator().manual_seed(0)
    assert adapter.gap_loss(text, video).item() == pytest.approx(expected, rel=0.02)  # the zero network

    unit = torch.nn.functional.normalize
    gap = math.sqrt(WIDTH) * (unit(video, dim=1) - unit(text, dim=1))
    bar = torch.tensor(adapter.schedule.alpha_bar, dtype=torch.float32)
    adapter.network = Network(lambda x, t: (x - bar[t - 1, None].sqrt() * gap) / (1 - bar[t - 1, None]).sqrt())
    assert adapter.gap_loss(text, video).item() == pytest.approx(0, abs=1e-5)


def test_a_network_that_knows_the_gap_arrives_at_the_video():
    text, video = texts(3).double(), texts(6)[3:].double()
    unit = torch.nn.functional.normalize
    adapter = diffusion().eval()
    gap = math.sqrt(WIDTH) * (unit(video, dim=1) - unit(text, dim=1))
    bars = adapter.schedule.alpha_bar
    adapter.network = Network(lambda x, t: (x - math.sqrt(bars[t - 1]) * gap) / math.sqrt(1 - bars[t - 1]))
    torch.testing.assert_close(adapter(text), unit(video, dim=1))


def test_a_query_always_gives_the_same_vector_alone_or_in_a_batch():
    adapter = randomized(diffusion())
    vectors = texts().numpy()
    whole = adapter.adapt(vectors)
    assert np.array_equal(whole, adapter.adapt(vectors))
    for row in range(5):
        np.testing.assert_allclose(adapter.adapt(vectors[row : row + 1])[0], whole[row], atol=1e-5)
    other = DiffusionAdapter(adapter.config.model_copy(update={"seed": 1}))
    other.load_state_dict(adapter.state_dict())
    assert not np.allclose(other.eval().adapt(vectors), whole, atol=1e-3)


def test_in_training_every_row_draws_for_itself():
    adapter = diffusion().train()
    with pytest.raises(ValueError, match="noise"):
        adapter(texts())
    adapter.noise = torch.Generator().manual_seed(0)
    same = texts(1).expand(4, -1)
    drawn = adapter(same)
    assert not torch.allclose(drawn[0], drawn[1])


def test_without_a_condition_all_queries_cross_by_the_same_gap_with_the_text_by_their_own():
    unit = torch.nn.functional.normalize(texts(), dim=1)
    for condition, alike in (("none", True), ("text", False)):
        adapter = randomized(diffusion(condition=condition), std=0.05)
        with torch.no_grad():
            gaps = adapter(unit) - unit
        assert torch.allclose(gaps, gaps[:1].expand_as(gaps), atol=1e-4 * float(gaps.abs().max())) == alike


def test_gradients_flow_through_the_whole_chain():
    adapter = randomized(diffusion(timesteps=3, beta_end=0.5)).double()
    text = texts(2).double().requires_grad_(True)
    assert torch.autograd.gradcheck(adapter, (text,))


def test_a_schedule_that_falls_is_refused():
    with pytest.raises(ValidationError, match="lies below"):
        DiffusionConfig(width=WIDTH, beta_start=0.5, beta_end=0.1)


def test_the_prior_has_the_stated_variance_and_no_weights():
    adapter = FixedPriorAdapter(FixedPriorConfig(width=WIDTH, variance=0.3)).train()
    assert not list(adapter.parameters())
    adapter.noise = torch.Generator().manual_seed(0)
    text = texts(20_000)
    gap = adapter(text) - text
    assert gap.mean().item() == pytest.approx(0, abs=0.01)
    assert gap.var().item() == pytest.approx(0.3, rel=0.02)


def test_without_variance_the_prior_is_plain_text():
    text = texts()
    adapter = FixedPriorAdapter(FixedPriorConfig(width=WIDTH, variance=0)).eval()
    assert torch.equal(adapter(text), text)
    unit = FixedPriorAdapter(FixedPriorConfig(width=WIDTH, variance=0, input="unit")).eval()
    torch.testing.assert_close(unit(text).norm(dim=1), torch.ones(5))


def test_the_prior_gives_a_query_the_same_vector_every_time():
    adapter = FixedPriorAdapter(FixedPriorConfig(width=WIDTH, variance=1)).eval()
    vectors = texts().numpy()
    np.testing.assert_allclose(adapter.adapt(vectors[2:3])[0], adapter.adapt(vectors)[2], atol=1e-6)
    assert not np.allclose(adapter.adapt(vectors), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("condition", ["video", "both"])
@pytest.mark.parametrize("kind", ["dits", "diffusion"])
class TestConditionedOnTheVideo:
    @pytest.fixture
    def adapter(self, kind, condition):
        if kind == "diffusion":
            return randomized(diffusion(condition=condition))
        return randomized(DITSAdapter(SamplerConfig(width=WIDTH, depth=1, steps=2, condition=condition)))

    def test_its_scores_are_those_of_the_pairs(self, adapter):
        text, video = texts(70), texts(140)[70:]
        scores = cosine_scores(adapter, text.numpy(), video.numpy())
        assert scores.shape == (70, 70)
        with torch.no_grad():
            for i, j in ((0, 0), (3, 69), (69, 5)):
                moved = adapter(text[i : i + 1], video[j : j + 1])
                expected = torch.nn.functional.cosine_similarity(moved, video[j : j + 1])
                assert scores[i : i + 1][0, j] == pytest.approx(expected.item(), abs=1e-5)

    def test_a_score_depends_on_its_pair_alone(self, adapter):
        text, video = texts(12).numpy(), texts(24)[12:].numpy()
        assert_blind(lambda t, v: cosine_scores(adapter.for_inference(), t, v)[:], text, video)

    def test_it_has_no_vector_of_a_text_alone(self, adapter):
        with pytest.raises(InputError, match="depends on the video"):
            adapter.adapt(texts().numpy())


def test_other_adapters_score_as_they_adapt():
    adapter = randomized(DITSAdapter(SamplerConfig(width=WIDTH, depth=1, steps=2)))
    text, video = texts(4).numpy(), texts(9)[4:].numpy()
    expected = adapter.adapt(text) @ (video / np.linalg.norm(video, axis=1, keepdims=True)).T
    np.testing.assert_allclose(cosine_scores(adapter, text, video)[:], expected, atol=1e-6)
