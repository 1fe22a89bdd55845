"""The query bank: its formula and its sharpness against slow references, what it is made of, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dits_adapter import DITSAdapter, QueryBankAdapter, QueryBankConfig, SamplerConfig, fit_query_bank, mean_shift
from dits_adapter.adapters import (
    AffineAdapter,
    AffineConfig,
    FixedPriorAdapter,
    FixedPriorConfig,
    MLPAdapter,
    MLPConfig,
)
from dits_adapter.adapters.bank import BankedAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sampler import FoldedSampler
from dits_adapter.space import EmbeddingSpace

WIDTH = 12


def normal(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)) + 0.5


def random_dits(**options) -> DITSAdapter:
    adapter = DITSAdapter(SamplerConfig(width=WIDTH, steps=3, depth=2, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return adapter.eval()


def unit64(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_sharpness(bank: np.ndarray) -> float:
    return 1.1 / np.std((bank @ bank.T)[~np.eye(len(bank), dtype=bool)])


def slow(queries: np.ndarray, bank: np.ndarray, weight: float, sharpness: float) -> np.ndarray:
    """Correct unit queries one by one and dimension by dimension."""
    corrected = []
    for query in queries:
        weights = np.array([np.exp(sharpness * sum(query * row)) for row in bank])
        weights /= sum(weights)
        corrected.append(query - weight * sum(w * row for w, row in zip(weights, bank, strict=True)))
    return unit64(np.array(corrected))


def test_formula_and_sharpness_are_those_of_a_slow_reference() -> None:
    texts, queries = normal(50, 0), normal(7, 1)
    bank = unit64(texts)
    adapter = fit_query_bank(texts, weight=0.3)
    assert adapter.config.sharpness == pytest.approx(slow_sharpness(bank), rel=1e-5)
    np.testing.assert_allclose(
        adapter.adapt(queries), slow(unit64(queries), bank, 0.3, slow_sharpness(bank)), atol=1e-6
    )


def test_norms_of_queries_and_of_texts_are_free() -> None:
    texts, queries = normal(50, 0), normal(7, 1)
    scale = np.random.default_rng(2).uniform(0.1, 9, size=(50, 1))
    np.testing.assert_allclose(
        fit_query_bank(texts * scale).adapt(queries * 3), fit_query_bank(texts).adapt(queries), atol=1e-6
    )


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_sharpness_undoes_the_scale_of_the_cosines(scale: float) -> None:
    """Texts that all share a large part have cosines near 1; the correction still tells them apart."""
    texts = normal(200, 0)
    shared = np.zeros(WIDTH)
    shared[0] = 20 * scale
    adapter = fit_query_bank(texts + shared)
    bank = unit64(texts + shared)
    cosines = adapter.config.sharpness * (bank @ bank.T)[~np.eye(200, dtype=bool)]
    assert np.std(cosines) == pytest.approx(1.1, rel=1e-2)


def test_a_hub_loses_its_lead() -> None:
    """A video near to every query stands before the right one with plain cosines, and behind it with the bank."""
    rng = np.random.default_rng(0)
    hub = np.eye(60)[0]
    own = np.concatenate([np.zeros((40, 1)), unit64(rng.normal(size=(40, 59)))], axis=1)
    queries = unit64(hub + 0.8 * own)
    others = unit64(hub + 0.8 * np.concatenate([np.zeros((200, 1)), unit64(rng.normal(size=(200, 59)))], axis=1))
    videos = np.concatenate([own, hub[None]])
    right = {
        name: np.mean((q @ videos.T).argmax(1) == np.arange(40))
        for name, q in {"plain": queries, "bank": fit_query_bank(others, weight=0.9).adapt(queries)}.items()
    }
    assert right["plain"] == 0
    assert right["bank"] == 1


class TestBehindAnAdapter:
    @pytest.mark.parametrize(
        "inner",
        [mean_shift(normal(20, 3), normal(20, 4) + 1), random_dits(), random_dits(input="raw")],
        ids=["affine", "dits", "dits-raw"],
    )
    def test_bank_and_queries_are_adapted(self, inner) -> None:
        texts, queries = normal(50, 0), normal(7, 1)
        adapter = fit_query_bank(texts, inner=inner)
        bank, adapted = unit64(inner.adapt(texts)), unit64(inner.adapt(queries))
        expected = slow(adapted, bank, 0.5, slow_sharpness(bank))
        np.testing.assert_allclose(adapter.adapt(queries), expected, atol=1e-5)
        np.testing.assert_allclose(adapter.for_inference().adapt(queries), expected, atol=1e-5)
        assert adapter.needs_norm == inner.needs_norm
        assert adapter.family == inner.family

    def test_the_form_for_inference_folds_it(self) -> None:
        ready = fit_query_bank(normal(50, 0), inner=random_dits()).for_inference()
        assert isinstance(ready.inner.sampler, FoldedSampler)

    def test_an_adapter_that_moves_nothing_is_left_out(self) -> None:
        plain = AffineAdapter(AffineConfig(width=WIDTH))
        assert fit_query_bank(normal(50, 0), inner=plain).config == fit_query_bank(normal(50, 0)).config

    def test_an_artifact_has_both(self, tiny_clip, tmp_path) -> None:
        space = EmbeddingSpace.of(load_encoder(tiny_clip))
        rng = np.random.default_rng(0)
        texts, queries = rng.normal(size=(30, space.video.width)), rng.normal(size=(5, space.video.width))
        inner = MLPAdapter(MLPConfig(width=space.video.width, depth=1))
        torch.nn.init.normal_(inner.layers[0].fc2.weight, std=0.3)
        adapter = fit_query_bank(texts, inner=inner.eval())
        saved = Artifact(adapter, space).save(tmp_path / "bank")
        loaded = Artifact.load(saved).adapter
        assert loaded.config == adapter.config
        assert np.array_equal(loaded.adapt(queries), adapter.adapt(queries))
        assert not np.allclose(loaded.adapt(queries), fit_query_bank(texts).adapt(queries))


class TestWhatItIsMadeOf:
    def test_equal_texts_count_once(self) -> None:
        texts = normal(50, 0)
        repeated = np.concatenate([texts, np.repeat(texts[:3], 40, axis=0), 2 * texts[5:6]])
        assert fit_query_bank(repeated).config == fit_query_bank(texts).config
        assert torch.equal(fit_query_bank(repeated).bank, fit_query_bank(texts).bank)

    def test_a_sample_of_too_many_depends_on_the_seed_alone(self) -> None:
        texts = normal(500, 0)
        first, again, other = (fit_query_bank(texts, size=60, seed=seed).bank for seed in (0, 0, 1))
        assert first.shape == (60, WIDTH)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        rows = {row.tobytes() for row in fit_query_bank(texts).bank.numpy()}
        drawn = [row.tobytes() for row in first.numpy()]
        assert len(set(drawn)) == 60
        assert rows.issuperset(drawn)


def test_strength_and_weight() -> None:
    queries = normal(5, 1).astype(np.float32)
    adapter = fit_query_bank(normal(50, 0))
    assert np.array_equal(adapter.adapt(queries, strength=0), queries)
    angles = [
        np.arccos(np.sum(unit64(queries) * adapter.adapt(queries, strength=s), axis=1)) for s in (0.25, 0.5, 1)
    ]
    np.testing.assert_allclose(angles[0] * 4, angles[2], rtol=1e-3)
    np.testing.assert_allclose(angles[1] * 2, angles[2], rtol=1e-3)
    nothing = fit_query_bank(normal(50, 0), weight=0)
    assert nothing.is_plain
    assert nothing.family == "plain"
    assert np.array_equal(nothing.adapt(queries), queries)
    assert adapter.family == "bank"


def test_sharp_banks_and_large_cosines_do_not_overflow() -> None:
    config = QueryBankConfig(width=WIDTH, size=3, sharpness=1e5)
    adapter = QueryBankAdapter(config, torch.eye(WIDTH)[:3])
    assert np.isfinite(adapter.adapt(normal(5, 1).astype(np.float32))).all()


class TestRefuses:
    @pytest.mark.parametrize(
        ("texts", "options", "message"),
        [
            (np.full((20, WIDTH), np.nan), {}, "row 0 holds NaN"),
            (np.zeros((20, WIDTH)), {}, "row 0 is the zero vector"),
            (normal(20, 0)[0], {}, "expected vectors of shape"),
            (np.float64(3), {}, "expected vectors of shape"),
            (np.ones((20, WIDTH), int), {}, "floating-point"),
            (np.empty((0, WIDTH)), {}, "at least 10 distinct queries, .* there are 0"),
            (np.repeat(normal(2, 0), 50, axis=0), {}, "at least 10 distinct queries, .* there are 2"),
            (np.eye(WIDTH), {}, "all alike"),
            (normal(20, 0), {"size": 9}, "size is 9"),
            (normal(20, 0), {"weight": 1.0}, "weight is 1.0"),
            (normal(20, 0), {"weight": float("nan")}, "weight is nan"),
            (normal(20, 0), {"inner": AffineAdapter(AffineConfig(width=5, method="ridge"))}, "has width 5"),
            (normal(20, 0), {"inner": fit_query_bank(normal(20, 0))}, "not behind another bank"),
            (normal(20, 0), {"inner": random_dits(condition="video")}, "depends on the video"),
        ],
    )
    def test_what_makes_no_bank(self, texts, options, message) -> None:
        with pytest.raises(InputError, match=message):
            fit_query_bank(texts, **options)

    @pytest.mark.parametrize(
        ("inner", "message"),
        [
            ({"kind": "no such thing", "config": {}}, "is unknown"),
            ({"kind": "query-bank", "config": {}}, "not behind another bank"),
            ({"kind": "mlp", "config": {"width": 3}}, "has width 3"),
            ({"kind": "mlp", "config": {"widht": 3}}, "widht"),
        ],
    )
    def test_an_artifact_with_a_wrong_inner_adapter(self, inner, message, tiny_clip, tmp_path) -> None:
        space = EmbeddingSpace.of(load_encoder(tiny_clip))
        adapter = fit_query_bank(np.random.default_rng(0).normal(size=(20, space.video.width)))
        adapter.config = adapter.config.model_copy(update={"inner": BankedAdapter(**inner)})
        folder = Artifact(adapter, space).save(tmp_path / "bank")
        with pytest.raises(ArtifactError, match=message):
            Artifact.load(folder)

    def test_export_behind_an_adapter_for_comparisons(self) -> None:
        inner = FixedPriorAdapter(FixedPriorConfig(width=WIDTH))
        assert not fit_query_bank(normal(20, 0), inner=inner).exportable
