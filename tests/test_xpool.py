"""The X-Pool head against a slow reference in double precision, and the score matrix made with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.leak import assert_blind
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.xpool import XPool, XPoolScores


def random_head(width: int, seed: int = 0) -> XPool:
    """A head whose every weight and bias is off its initial value."""
    head = XPool(width).eval().double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * width**-0.5
    return head


def reference_pool(weights: dict[str, torch.Tensor], text: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """One text (d,) and one video (f, d), by the equations of the X-Pool paper (Gorti et al., CVPR 2022): (d,)."""

    def norm(x, number):
        centered = x - x.mean()
        scaled = centered / math.sqrt(float((centered**2).mean()) + 1e-5)
        return scaled * weights[f"layer_norm{number}.weight"] + weights[f"layer_norm{number}.bias"]

    def linear(x, name):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    query = linear(norm(text, 1), "q_proj")
    logits = [float(query @ linear(norm(frame, 1), "k_proj")) / math.sqrt(len(text)) for frame in frames]
    total = sum(math.exp(logit) for logit in logits)
    attended = torch.zeros_like(text)
    for logit, frame in zip(logits, frames, strict=True):
        attended += math.exp(logit) / total * linear(norm(frame, 1), "v_proj")
    a = norm(linear(attended, "out_proj"), 2)
    return norm(a + linear(a, "linear_proj"), 3)


def test_it_has_as_many_parameters_as_the_released_head():
    assert sum(parameter.numel() for parameter in XPool(512).parameters()) == 1_316_352


def test_it_starts_as_the_identity():
    head = XPool(16).eval()
    for linear in (head.q_proj, head.k_proj, head.v_proj, head.out_proj, head.linear_proj):
        assert torch.equal(linear.weight, torch.eye(16))
        assert not linear.bias.any()
    still = torch.randn(16, generator=torch.Generator().manual_seed(0))
    pooled = head(torch.ones(1, 16).cumsum(1), still.expand(1, 12, 16))
    torch.testing.assert_close(pooled[0, 0], torch.layer_norm(still, [16]), atol=1e-4, rtol=0)


def test_an_untrained_head_attends_to_the_frame_that_is_like_the_text():
    frames = torch.eye(8)[None] * 5
    pooled = XPool(8).eval()(torch.eye(8), frames)[:, 0]
    assert (pooled.argmax(dim=1) == torch.arange(8)).all()


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 4),
    m=st.integers(1, 4),
    f=st.integers(1, 12),
    width=st.sampled_from([2, 3, 8]),
    seed=st.integers(0, 999),
)
def test_it_equals_the_slow_reference(n, m, f, width, seed):
    head = random_head(width, seed)
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(n, width, generator=generator, dtype=torch.float64) * 9
    frames = torch.randn(m, f, width, generator=generator, dtype=torch.float64) * 9
    pooled = head(text, frames)
    assert pooled.shape == (n, m, width)
    weights = {name: value.detach() for name, value in head.named_parameters()}
    for i in range(n):
        for j in range(m):
            expected = reference_pool(weights, text[i], frames[j])
            torch.testing.assert_close(pooled[i, j], expected, atol=1e-9, rtol=1e-9)


def test_its_gradients_are_right():
    head = random_head(4)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(head.similarity, (draw(2, 4), draw(2, 4), draw(3, 5, 4)))


def test_the_order_of_frames_does_not_matter():
    head, generator = random_head(8).float(), torch.Generator().manual_seed(0)
    text, frames = torch.randn(3, 8, generator=generator), torch.randn(2, 12, 8, generator=generator)
    shuffled = frames[:, torch.randperm(12, generator=generator)]
    torch.testing.assert_close(head(text, frames), head(text, shuffled))


def test_dropout_acts_in_training_only():
    head, text, frames = XPool(8), torch.randn(2, 8), torch.randn(3, 12, 8)
    torch.manual_seed(0)
    assert not torch.equal(head(text, frames), head(text, frames))
    head.eval()
    assert torch.equal(head(text, frames), head(text, frames))


@pytest.fixture(scope="module")
def data():
    """150 texts and 130 videos, more than two tiles of either; video i is what text i describes."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(150, 16)).astype(np.float32)
    frames = text[:130, None] + 2 * rng.normal(size=(130, 6, 16)).astype(np.float32)
    return random_head(16).float(), text, frames


def test_blocks_and_tiles_change_nothing(data):
    head, text, frames = data
    queries = text[:, ::-1].copy()
    scores = XPoolScores(head, queries, text, frames)
    assert scores.shape == (150, 130)
    with torch.no_grad():
        whole = head.similarity(*(torch.from_numpy(x) for x in (queries, text, frames)))
    np.testing.assert_allclose(scores[:], whole, atol=1e-6)
    np.testing.assert_allclose(scores[60:70], whole[60:70], atol=1e-6)


def test_nothing_of_the_size_of_all_pairs_is_held(data, monkeypatch):
    head, text, frames = data
    seen = []

    def similarity(self, queries, text, frames):
        seen.append((len(text), len(frames)))
        return queries @ frames[:, 0].T

    monkeypatch.setattr(XPool, "similarity", similarity)
    XPoolScores(head, text, text, frames)[:]
    assert max(seen) == (64, 64)
    assert sum(n * m for n, m in seen) == 150 * 130


def test_a_score_depends_on_its_pair_alone(data):
    head, text, frames = data
    assert_blind(lambda texts, videos: XPoolScores(head, texts, texts, videos)[:], text[:130], frames)


def test_the_metrics_read_it(data):
    _, text, frames = data
    found = ranks(XPoolScores(XPool(16), text, text, frames), labels=np.arange(150) % 130)
    assert np.median(found[:130]) < 10 < np.median(found[130:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, t, f: (q, t, f[:, 0]), r"shape \(videos, frames, d\)"),
        (lambda q, t, f: (q[:3], t, f), "3 queries for 150 texts"),
        (lambda q, t, f: (q, t[:, :8], f), r"\(n, 16\)"),
        (lambda q, t, f: (q, np.where(t == t[7], np.nan, t), f), "row 7 holds NaN"),
    ],
)
def test_bad_input_is_refused(data, change, message):
    head, text, frames = data
    with pytest.raises(InputError, match=message):
        XPoolScores(head, *change(text, text, frames))
