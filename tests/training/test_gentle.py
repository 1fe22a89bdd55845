"""`dits-adapter train` with the presets for few pairs, and with a bank of their texts behind."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.adapters import _folds, adapter_entry
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training.config import Recipe
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

pytestmark = pytest.mark.filterwarnings("ignore:the .* test videos fix R@1", "ignore:the adapter gets no prob")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_folds, "_START_ROUNDS", 1)


@pytest.fixture(scope="module")
def pairs(tiny_clip):
    """Sixty videos under a tiny CLIP, whose texts a rotation keeps apart from them."""
    space = EmbeddingSpace.of(load_encoder(tiny_clip))
    rng = np.random.default_rng(0)
    video = unit(rng.normal(size=(60, space.video.width)))
    turn = np.linalg.qr(rng.normal(size=(space.video.width, space.video.width)))[0]
    text = video + video @ turn + 0.2 * rng.normal(size=video.shape) + np.eye(space.video.width)[0]
    return Pairs(text.astype(np.float32), video, np.arange(60), space)


@pytest.fixture(scope="module")
def cache(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.safetensors"
    pairs.save(path)
    return path


@pytest.mark.parametrize("preset", ["gentle-linear", "gentle-mlp", "gentle-dits"])
def test_from_pairs_to_a_bank_behind_an_adapter(preset, cache, pairs, tmp_path, capsys):
    folder = tmp_path / preset
    assert main(["train", str(cache), "--preset", preset, "--bank", "--out", str(folder)]) == 0
    assert "chosen by cross-validation: strength" in capsys.readouterr().out
    artifact = Artifact.load(folder)
    rest, _ = pairs.split(0.1, 24)
    kept, _ = rest.split(0.1, 24)
    expected = adapter_entry(preset).cross_validated(kept.text, kept.video[kept.labels])
    assert artifact.training["choice"] == expected.choice()
    assert artifact.adapter.config.inner.kind == expected.adapter.kind
    np.testing.assert_allclose(artifact.adapter.bank.numpy(), unit(expected.out_of_fold), atol=1e-6)
    adapted = expected.adapter.adapt(pairs.text)
    nearness = np.exp(artifact.adapter.config.sharpness * adapted @ expected.out_of_fold.T)
    nearness /= nearness.sum(1, keepdims=True)
    right = unit(adapted - 0.5 * nearness @ expected.out_of_fold)
    np.testing.assert_allclose(artifact.adapter.for_inference().adapt(pairs.text), right, atol=1e-5)


def test_plain_clip_with_a_bank_is_a_query_bank(pairs):
    adapter, _ = fit(Recipe(adapter="identity", bank="queries"), pairs, pairs)
    assert adapter.kind == "query-bank"
    assert adapter.inner is None
    np.testing.assert_allclose(adapter.bank.numpy(), unit(pairs.text), atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(adapter="ridge", bank="queries"), "cannot stand behind 'ridge'"),
        (Recipe(sampler={"condition": "video"}, bank="queries"), "depends on the video"),
        (Recipe(adapter="gentle-mlp", options={"depth": 2}), "takes no options"),
        (Recipe(adapter="gentle-dits", sampler={"steps": 5}), "takes no options"),
    ],
)
def test_refuses(recipe, message, pairs):
    with pytest.raises(InputError, match=message):
        fit(recipe, pairs, pairs)


def test_a_score_bias_is_no_adapter(cache, tmp_path, capsys):
    command = ["train", str(cache), "--preset", "gentle-mlp", "--set", "bank=scores", "--out", str(tmp_path / "a")]
    assert main(command) == 1
    assert "belongs to the searched videos" in capsys.readouterr().err
