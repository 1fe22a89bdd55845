"""The score bias against its formula in double precision, and what it does to a ranking."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.errors import InputError
from dits_adapter.evaluation import score_bias as module
from dits_adapter.evaluation.metrics import DotProducts, ranks
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, BiasedScores, bias_sharpness, score_bias

WIDTH = 16


def normal(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def unit64(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_bias(items, bank, sharpness):
    return np.array(
        [np.log(np.mean([np.exp(sharpness * (q @ v)) for q in unit64(bank)])) / sharpness for v in unit64(items)]
    )


@pytest.fixture(params=[2**21, 100], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("sharpness", [0.5, 5.0, 60.0, 3000.0])
def test_it_is_the_formula(sharpness):
    items, bank = 3 * normal(45, 0), 0.2 * normal(30, 1)
    bias = score_bias(items, bank, sharpness=sharpness)
    assert bias.dtype == np.float32
    if sharpness < 700:  # beyond, the slow formula overflows
        np.testing.assert_allclose(bias, slow_bias(items, bank, sharpness), atol=1e-5)
    cosines = unit64(items) @ unit64(bank).T
    assert np.all(bias > cosines.mean(1) - 1e-5)
    assert np.all(bias < cosines.max(1) + 1e-5)


@pytest.mark.usefixtures("blocks")
def test_the_sharpness_is_free_of_scales():
    items, bank = normal(45, 0) + 3, normal(30, 1) + 3  # as CLIP's, whose cosines are all alike
    spread = (unit64(bank) @ unit64(items).T).std(axis=0).mean()
    assert bias_sharpness(items, bank) == pytest.approx(2.5 / spread, rel=1e-4)
    assert bias_sharpness(7 * items, bank * np.arange(1, 31)[:, None]) == pytest.approx(2.5 / spread, rel=1e-4)


def test_items_come_one_by_one_or_together():
    """So that a store may compute the bias of each batch that it takes in."""
    items, bank = normal(45, 0), normal(30, 1)
    parts = [score_bias(items[at : at + 7], bank, sharpness=9.0) for at in range(0, 45, 7)]
    np.testing.assert_allclose(np.concatenate(parts), score_bias(items, bank, sharpness=9.0), atol=1e-6)
    assert score_bias(items[:0], bank, sharpness=9.0).shape == (0,)


def test_a_hub_loses_its_lead():
    rng = np.random.default_rng(0)
    hub = np.eye(WIDTH)[0]
    own = np.concatenate([np.zeros((40, 1)), unit64(rng.normal(size=(40, WIDTH - 1)))], axis=1)
    others = np.concatenate([np.zeros((200, 1)), unit64(rng.normal(size=(200, WIDTH - 1)))], axis=1)
    queries, bank = unit64(hub + 0.8 * own), unit64(hub + 0.8 * others)
    videos = np.concatenate([own, hub[None]])
    scores, labels = DotProducts(queries, videos), np.arange(40)
    biased = BiasedScores(scores, score_bias(videos, bank, sharpness=bias_sharpness(videos, bank)))
    assert biased.shape == scores.shape
    assert np.mean(ranks(scores, labels) == 1) == 0
    assert np.mean(ranks(biased, labels) == 1) > 0.5
    bias = score_bias(videos, bank, sharpness=bias_sharpness(videos, bank))
    np.testing.assert_allclose(biased[3:5], queries[3:5] @ videos.T - BIAS_WEIGHT * bias, atol=1e-6)


@pytest.mark.parametrize(
    ("items", "bank", "message"),
    [
        (normal(5, 0), normal(5, 1)[:, :3], "expected vectors of shape"),
        (normal(5, 0), normal(5, 1)[0], "expected vectors of shape"),
        (normal(5, 0), normal(0, 1), "the bank holds no queries"),
        (normal(5, 0), np.full((5, WIDTH), np.nan), "row 0 holds NaN"),
        (np.zeros((5, WIDTH)), normal(5, 1), "row 0 is the zero vector"),
        (normal(0, 0), normal(5, 1), "there are no items"),
        (normal(5, 0), np.ones((5, WIDTH)), "all alike"),
    ],
)
def test_refuses(items, bank, message):
    with pytest.raises(InputError, match=message):
        score_bias(items, bank, sharpness=bias_sharpness(items, bank))


@pytest.mark.parametrize("sharpness", [0, -1, np.nan, np.inf])
def test_refuses_a_sharpness(sharpness):
    with pytest.raises(InputError, match="sharpness is"):
        score_bias(normal(5, 0), normal(5, 1), sharpness=sharpness)
