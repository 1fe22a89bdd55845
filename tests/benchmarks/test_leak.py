from __future__ import annotations

import numpy as np
import pytest

from benchmarks.leak import LeakError, assert_blind
from dits_adapter.evaluation.metrics import ranks


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def data():
    """Twelve texts and the twelve videos that they describe, six frame vectors each."""
    rng = np.random.default_rng(0)
    texts = unit(rng.normal(size=(12, 16)))
    return texts, unit(texts[:, None] + 1.5 * rng.normal(size=(12, 6, 16)))


def pooled_cosine(texts, videos):
    return texts @ unit(videos.mean(axis=1)).T


def max_sim(texts, videos):
    return np.einsum("nd,mfd->nmf", texts, videos).max(axis=2)


def attention(texts, videos):
    """X-Pool's pooling without its weights: each video's frames, weighted by each query."""
    similarity = np.einsum("nd,mfd->nmf", texts, videos)
    weights = np.exp(4 * similarity) / np.exp(4 * similarity).sum(axis=2, keepdims=True)
    return np.einsum("nd,nmd->nm", texts, unit(np.einsum("nmf,mfd->nmd", weights, videos)))


def attention_under_own_caption(texts, videos):
    """T-MASS's released evaluation: video i is pooled once, under text i."""
    similarity = np.einsum("md,mfd->mf", texts[np.arange(len(videos)) % len(texts)], videos)
    weights = np.exp(4 * similarity) / np.exp(4 * similarity).sum(axis=1, keepdims=True)
    return texts @ unit(np.einsum("mf,mfd->md", weights, videos)).T


def diagonal_bonus(texts, videos):
    return pooled_cosine(texts, videos) + 0.2 * np.eye(len(texts), len(videos))


def dual_softmax(texts, videos):
    scores = pooled_cosine(texts, videos)
    return (
        scores
        * np.exp(100 * (scores - scores.max(axis=0)))
        / np.exp(100 * (scores - scores.max(axis=0))).sum(axis=0)
    )


HONEST = [pooled_cosine, max_sim, attention]


@pytest.mark.parametrize("score", HONEST)
def test_honest_scorers_are_blind(score, data):
    assert_blind(score, *data)


@pytest.mark.parametrize("score", HONEST)
def test_whose_caption_is_whose_reaches_the_ranks_through_the_labels_only(score, data):
    texts, videos = data
    order = np.random.default_rng(1).permutation(12)
    shuffled = score(texts[order], videos)
    np.testing.assert_allclose(shuffled, score(texts, videos)[order], atol=1e-12)
    assert (ranks(shuffled, labels=order) == ranks(score(texts, videos))[order]).all()


@pytest.mark.parametrize("score", [attention_under_own_caption, diagonal_bonus, dual_softmax])
def test_scorers_that_look_at_more_than_the_pair_are_caught(score, data):
    with pytest.raises(LeakError, match="must depend on these two alone"):
        assert_blind(score, *data)


def test_the_leak_of_t_mass_is_one_worth_catching(data):
    texts, videos = data
    assert ranks(attention_under_own_caption(texts, videos)).mean() < ranks(attention(texts, videos)).mean()


def test_a_scorer_that_returns_nonsense_is_no_blind_one(data):
    with pytest.raises(LeakError):
        assert_blind(lambda texts, videos: np.full((len(texts), len(videos)), np.nan), *data)
