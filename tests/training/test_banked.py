"""A bank behind an adapter that is trained: rows of the comparison, and `train --bank` with any preset."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.adapters import QueryBankAdapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.evaluation.score_bias import bias_sharpness, score_bias
from dits_adapter.training import _banked
from dits_adapter.training._table import row_ranks
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.rows import all_rows
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit
from tests.spaces import made_up_space

WIDTH = 8
QUICK = TrainingConfig(epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 2)
    video = rng.normal(size=(40, WIDTH))
    text = video[labels] + rng.normal(size=(80, WIDTH))
    return Pairs(text.astype("float32"), unit(video), labels, made_up_space(WIDTH))


@pytest.mark.parametrize(("cross_validated", "texts"), [(1000, 80), (20, 16)])
def test_each_text_is_adapted_by_one_that_has_not_seen_its_video(pairs, monkeypatch, cross_validated, texts):
    monkeypatch.setattr(_banked, "_CROSS_VALIDATED", cross_validated)
    seen = []

    class Marked(QueryBankAdapter):
        """Adapter that returns the texts of unseen videos as they are, and those of seen ones as zeros."""

        def adapt(self, vectors, strength=1.0):
            assert not {row.tobytes() for row in vectors} & {row.tobytes() for row in seen[-1].text}
            return vectors

    plain, _ = fit(all_rows()["query-bank"], pairs, pairs)

    def train(part):
        seen.append(part)
        adapter = Marked(plain.config, plain.bank)
        monkeypatch.setattr(adapter, "for_inference", lambda: adapter)
        return adapter

    inner, _ = fit(all_rows()["ridge"], pairs, pairs)
    banked = _banked.with_bank(inner, pairs, train)
    assert len(banked.bank) == texts
    assert len(seen) == _banked.trainings(80) == (5 if texts == 80 else 1)
    for part in seen:
        assert len(part.video) < 40


def test_one_training_serves_all_uses_of_a_bank(pairs):
    rows = all_rows((1,), QUICK)
    adapters = [fit(rows[f"mlp-best-{use}"], pairs, pairs, progress=False)[0] for use in ("bank", "bias", "both")]
    assert adapters[0] is adapters[1] is adapters[2]
    assert adapters[0].inner is not None


def test_both_sides_take_a_quarter_and_seven_twentieths(pairs):
    recipe = all_rows()["both-sides"]
    adapter, _ = fit(recipe, pairs, pairs)
    vectors = unit(pairs.text), adapter.bank.numpy(), pairs.video
    queries, bank, video = (rows.astype(np.float64) for rows in vectors)
    nearness = np.exp(adapter.config.sharpness * queries @ bank.T)
    moved = queries - 0.25 * (nearness / nearness.sum(1, keepdims=True)) @ bank
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    bias = score_bias(video, bank, sharpness=bias_sharpness(video, bank))
    expected = ranks(moved @ video.T - 0.35 * bias, pairs.labels)
    np.testing.assert_array_equal(row_ranks(recipe, adapter, pairs), expected)
