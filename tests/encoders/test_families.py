"""Families of encoders: chosen by the config before any weight is read; one defined here does what CLIP does."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.embed import embed
from dits_adapter.encoders import EncoderFamily, EncoderSource, base, load_encoder, register_family
from dits_adapter.errors import ArtifactError, InputError, SpaceMismatchError
from dits_adapter.space import EmbeddingSpace
from tests.encoders import random_projection
from tests.video.clips import picture, write_clip


@pytest.fixture(autouse=True)
def _families(monkeypatch):
    monkeypatch.setattr(base, "_FAMILIES", dict(base._FAMILIES))
    register_family(random_projection.FAMILY)


@pytest.fixture
def checkpoint(tmp_path):
    return random_projection.save(tmp_path / "projection")


@pytest.fixture
def film(tmp_path):
    return write_clip(tmp_path / "film.mp4", [picture(n) for n in range(15)])


LOADERS = [load_encoder, VideoEncoder.from_pretrained, DITSQueryEncoder.from_pretrained]


class TestFamilyDefinedHere:
    def test_embeds_videos(self, checkpoint, film):
        encoder = VideoEncoder.from_pretrained(checkpoint, frames=3)
        segment = encoder.encode_video(film)
        assert segment.frame_vectors.shape == (3, 32)
        assert encoder.space.text.encoder == "projection"
        assert encoder.space.video.width == 32

    def test_has_a_space_that_another_checkpoint_is_told_from(self, checkpoint, tmp_path):
        other = random_projection.save(tmp_path / "other", seed=1)
        ours, theirs = (EmbeddingSpace.of(load_encoder(folder)) for folder in (checkpoint, other))
        with pytest.raises(SpaceMismatchError, match=r"projection.*other"):
            ours.require(theirs, mine="this", theirs="that")

    def test_fills_a_cache(self, checkpoint, film, tmp_path):
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text(json.dumps({"video": film.name, "text": "a picture"}) + "\n")
        embed(pairs, tmp_path / "cache", VideoEncoder.from_pretrained(checkpoint, frames=3), progress=False)
        cache = EmbeddingCache(tmp_path / "cache")
        np.testing.assert_allclose(cache.text[:], load_encoder(checkpoint).embed_texts(["a picture"]))
        assert cache.video[:].shape == (1, 32)

    def test_encodes_queries(self, checkpoint, tmp_path):
        rng = np.random.default_rng(0)
        adapter = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
        space = EmbeddingSpace.of(load_encoder(checkpoint))
        encoder = DITSQueryEncoder.from_pretrained(Artifact(adapter, space).save(tmp_path / "shift"))
        raw = load_encoder(checkpoint).embed_texts(["a dog", "a cat"])
        np.testing.assert_allclose(encoder.embed(["a dog", "a cat"]), raw)
        np.testing.assert_allclose(encoder.encode_query(["a dog", "a cat"]), encoder.adapt(raw), atol=1e-6)
        with pytest.warns(UserWarning, match="30 tokens; the encoder reads the first 20"):
            encoder.encode_query("x" * 30)

    def test_serves_without_an_adapter(self, checkpoint):
        with pytest.warns(UserWarning, match="projection is an encoder without an adapter"):
            encoder = DITSQueryEncoder.from_pretrained(checkpoint)
        assert np.array_equal(encoder.encode_query("a dog"), encoder.encode_document("a dog"))

    def test_is_refused_where_transformers_is_needed(self, checkpoint, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoder = DITSQueryEncoder.from_pretrained(checkpoint)
        with pytest.raises(InputError, match="family that cannot be exported"):
            encoder.export_onnx(tmp_path / "out")
        with pytest.raises(InputError, match="no sentence-transformers form"):
            encoder.as_sentence_transformer()


class TestChoice:
    def test_unknown_families_are_refused_by_name(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ArtifactError, match=r"'bert'.*known are clip, .*random-projection"):
            load_encoder(tmp_path)

    @pytest.mark.parametrize("config", ["{", "[]", '{"architectures": []}'])
    def test_configs_without_a_family(self, tmp_path, config):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ArtifactError, match=r"no readable config\.json of an encoder"):
            load_encoder(tmp_path)

    @pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "nowhere"])
    def test_missing_folders_are_named(self, name):
        with pytest.raises(ArtifactError, match="no such folder"):
            EncoderSource.find(name)

    def test_one_family_for_each_type(self):
        register_family(random_projection.FAMILY)  # again
        with pytest.raises(InputError, match="'clip' is registered already"):
            register_family(EncoderFamily("clip", random_projection.FAMILY.load))
