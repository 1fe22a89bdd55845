"""Scorers against slow references, blind to labels or marked as not, and the same search through Qdrant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import qdrant
from benchmarks.leak import LeakError, assert_blind
from benchmarks.scorers import DualSoftmax, MaxSim, QBNorm, TwoStage
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import DITSError
from dits_adapter.evaluation.metrics import DotProducts, ranks
from dits_adapter.xpool import XPool, XPoolScores
from tests.spaces import made_up_space
from tests.stores.conftest import qdrant_server  # noqa: F401
from tests.stores.server import qdrant_client

WIDTH = 16


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def made_up(seed: int, texts: int, videos: int, frames: int = 3):
    rng = np.random.default_rng(seed)
    text = unit(rng.normal(size=(texts, WIDTH)))
    return text, unit(text[np.arange(videos) % texts, None] + rng.normal(size=(videos, frames, WIDTH)))


def pooled(texts, frames):
    return DotProducts(texts, unit(frames.mean(axis=1)))


cases = given(st.integers(0, 1000), st.integers(1, 8), st.integers(1, 8))
few = settings(max_examples=25, deadline=None)


@few
@cases
def test_maxsim_is_the_best_frame_whatever_the_block(seed, n, m):
    texts, frames = made_up(seed, n, m)
    expected = [[max(float(text @ frame) for frame in video) for video in frames] for text in texts]
    scores = MaxSim(texts, frames)
    assert scores.shape == (n, m)
    np.testing.assert_allclose(np.concatenate([scores[:2], scores[2:]]), expected, atol=1e-6)


@few
@given(st.integers(0, 1000), st.integers(1, 8), st.integers(1, 8), st.integers(1, 10))
def test_two_stages_order_the_short_list_anew_and_leave_the_rest(seed, n, m, short_list):
    texts, frames = made_up(seed, n, m)
    first, second = pooled(texts, frames), MaxSim(texts, frames)
    for a, b, both in zip(first[:], second[:], TwoStage(first, second, short_list)[:], strict=True):
        order = sorted(range(m), key=lambda video: -a[video])
        listed = sorted(order[:short_list], key=lambda video: -b[video])
        assert sorted(range(m), key=lambda video: -both[video]) == listed + order[short_list:]


def test_ties_with_the_last_of_the_short_list_are_on_it():
    first, second = np.array([[0.5, 0.2, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.3, 0.9]])
    assert np.argsort(-TwoStage(first, second, 2)[:]).tolist() == [[2, 1, 0, 3]]


@few
@cases
def test_dual_softmax_by_hand(seed, n, m):
    scores = pooled(*made_up(seed, n, m))
    block = scores[:].astype(np.float64)
    weights = np.exp(block / 0.1)
    expected = [[block[i, j] * weights[i, j] / sum(weights[:, j]) for j in range(m)] for i in range(n)]
    np.testing.assert_allclose(DualSoftmax(scores, temperature=0.1)[:], expected, atol=1e-9)


@few
@cases
def test_qb_norm_by_hand(seed, n, m):
    texts, frames = made_up(seed, n, m)
    bank = unit(np.random.default_rng(seed + 1).normal(size=(5, WIDTH)))
    scores, of_bank = pooled(texts, frames), pooled(bank, frames)
    hubs = {int(np.argmax(row)) for row in of_bank[:]}
    total = [sum(np.exp(20.0 * float(row[j])) for row in of_bank[:]) for j in range(m)]
    expected = [
        [np.exp(20.0 * float(row[j])) / total[j] for j in range(m)] if int(np.argmax(row)) in hubs else list(row)
        for row in scores[:]
    ]
    np.testing.assert_allclose(QBNorm(scores, of_bank)[:], expected, rtol=1e-5)


def test_a_bank_for_other_videos_is_refused():
    with pytest.raises(DITSError, match="the bank scores 3 videos, the texts 2"):
        QBNorm(np.zeros((4, 2)), np.zeros((4, 3)))


def x_pool_head():
    """A head that weighs frames very unequally."""
    generator = torch.Generator().manual_seed(0)
    head = XPool(WIDTH).eval()
    for projection in (head.q_proj, head.k_proj, head.linear_proj):
        torch.nn.init.normal_(projection.weight, generator=generator)
    return head


def x_pool(texts, frames):
    """X-Pool with queries that are adapted, and so others than the texts under which frames are pooled."""
    return XPoolScores(x_pool_head(), texts + np.roll(texts, 1, axis=1), texts, frames)


BLIND = {
    "pooled": pooled,
    "maxsim": MaxSim,
    "x-pool": x_pool,
    "two-stage by maxsim": lambda texts, frames: TwoStage(pooled(texts, frames), MaxSim(texts, frames), 4),
    "two-stage by x-pool": lambda texts, frames: TwoStage(pooled(texts, frames), x_pool(texts, frames), 4),
}
USES_OTHERS = {
    "dual softmax": lambda texts, frames: DualSoftmax(pooled(texts, frames)),
    "QB-Norm": lambda texts, frames: QBNorm(pooled(texts, frames), pooled(texts, frames)),
}


@pytest.mark.parametrize("name", BLIND)
def test_what_does_not_use_other_queries_is_blind(name):
    assert_blind(lambda t, v: BLIND[name](t, v)[:], *made_up(0, 12, 12), alone="two-stage" not in name)


@pytest.mark.parametrize("name", BLIND)
def test_whose_caption_is_whose_reaches_the_ranks_through_the_labels_only(name):
    texts, frames = made_up(0, 12, 12)
    order = np.random.default_rng(1).permutation(12)
    straight, shuffled = BLIND[name](texts, frames)[:], BLIND[name](texts[order], frames)[:]
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-6)
    assert (ranks(shuffled, labels=order) == ranks(straight)[order]).all()
    assert (ranks(shuffled) != ranks(straight)[order]).any()


def test_x_pool_under_each_videos_own_caption_is_caught():
    """T-MASS's released evaluation: video i is pooled once, under text i, for all queries."""

    def leaky(texts, frames):
        own = np.arange(len(frames)) % len(texts)
        with torch.inference_mode():
            under_all = x_pool_head()(torch.tensor(texts).float(), torch.tensor(frames).float()).numpy()
        return texts @ unit(under_all[own, np.arange(len(frames))]).T

    with pytest.raises(LeakError, match="must depend on these two alone"):
        assert_blind(leaky, *made_up(0, 12, 12))


@pytest.mark.parametrize("name", USES_OTHERS)
def test_what_uses_other_queries_is_caught(name):
    with pytest.raises(LeakError):
        assert_blind(lambda t, v: USES_OTHERS[name](t, v)[:], *made_up(0, 12, 12), alone=False)


def test_a_short_list_depends_on_the_other_videos():
    with pytest.raises(LeakError, match=r"left out|alone"):
        assert_blind(lambda t, v: BLIND["two-stage by maxsim"](t, v)[:], *made_up(0, 12, 12))


def stored_pairs(videos: int, frames: bool = True) -> tuple[Pairs, np.ndarray]:
    texts, of_frames = made_up(3, videos, videos)
    space = made_up_space(WIDTH, frames=3)
    of_frames = of_frames.astype(np.float32)
    video = unit(of_frames.mean(axis=1)).astype(np.float32)
    pairs = Pairs(texts.astype(np.float32), video, np.arange(videos), space, frames=of_frames if frames else None)
    return pairs, texts


def test_local_qdrant_ranks_as_the_exact_scorers_do():
    test, texts = stored_pairs(40)
    found = qdrant.search(":memory:", test, texts, progress=False)
    first = pooled(texts, test.frames)
    assert found["Qdrant, exact"][0].tolist() == ranks(first).tolist()
    assert found["Qdrant, exact, then MaxSim"][0].tolist() == ranks(MaxSim(texts, test.frames)).tolist()
    assert all(milliseconds > 0 for _, milliseconds in found.values())


def test_a_video_beyond_the_hits_counts_as_the_last(monkeypatch):
    monkeypatch.setattr(qdrant, "LIMIT", 5)
    test, texts = stored_pairs(40, frames=False)
    found = qdrant.search(":memory:", test, texts, progress=False)
    exact = ranks(pooled(texts, made_up(3, 40, 40)[1]))
    assert list(found) == ["Qdrant, exact"]
    assert found["Qdrant, exact"][0].tolist() == np.where(exact <= 5, exact, 40).tolist()


@pytest.mark.docker
def test_a_server_shows_what_its_index_and_quantization_cost(qdrant_server):  # noqa: F811

    test, texts = stored_pairs(500)
    found = qdrant.search(qdrant_server, test, texts, progress=False)
    assert list(found) == [mode.name for mode in qdrant.SERVER]
    exact = ranks(pooled(texts, test.frames))
    found_exact = found["Qdrant, exact"][0]
    assert (found_exact[exact <= 90] == exact[exact <= 90]).all()
    for values, _ in found.values():
        assert (values <= 10).sum() > (exact <= 10).sum() / 2
    assert (found["Qdrant, HNSW, int8"][0] != found_exact).any()
    client = qdrant_client(qdrant_server)
    assert not [c.name for c in client.get_collections().collections if "benchmark" in c.name]
