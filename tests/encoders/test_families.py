"""Families of encoders: chosen by the config before any weight is read; one defined here does what CLIP does."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from transformers.models.auto.configuration_auto import model_type_to_module_name

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.embed import embed
from dits_adapter.encoders import EncoderFamily, EncoderSource, base, load_encoder, register_family
from dits_adapter.encoders._families import DUAL_FAMILIES, OPEN_CLIP_EXAMPLES, REFUSED
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


class TestTable:
    """docs/encoders.md against the registry, and the registry against the transformers that is installed."""

    @pytest.fixture(scope="class")
    def rows(self):
        page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text("utf-8")
        lines = [line for line in page.splitlines() if line.startswith("| `")]
        return {cells[0].strip("`"): cells[1:] for line in lines for cells in [line[2:-2].split(" | ")]}

    def test_each_family_has_its_row(self, rows):
        for family in DUAL_FAMILIES.values():
            examples = ", ".join(f"`{name}`" for name in family.examples)
            sees = "whole clips" if family.clip_frames else "frames of any shape" if family.patches else "frames"
            if family.padding == "longest":
                padding = "to the longest" + (", masked" if family.mask else "")
            else:
                padding = "to 64, " + ("masked" if family.mask else "seen")
            assert rows[family.model_type] == [examples, sees, padding, "yes" if family.joint else "no"]
        assert rows["open_clip"][0] == ", ".join(f"`{name}`" for name in OPEN_CLIP_EXAMPLES)
        others = {"open_clip", "sentence-transformers"}
        assert rows.keys() - {"model_type"} == {*DUAL_FAMILIES, *REFUSED, *others}
        assert set(base._FAMILIES) == {*DUAL_FAMILIES, *others, "random-projection"}

    def test_each_refusal_has_its_row(self, rows):
        assert {name: rows[name] for name in REFUSED} == {name: [reason] for name, reason in REFUSED.items()}

    def test_every_dual_encoder_of_transformers_is_decided(self):
        models = Path(find_spec("transformers").submodule_search_locations[0]) / "models"
        sources = {path: path.read_bytes() for path in models.glob("*/modeling_*.py")}
        dual = {path.parent.name for path, source in sources.items() if b"def get_text_features" in source}
        types = {model_type_to_module_name(name) for name in {*DUAL_FAMILIES, *REFUSED}}
        assert len(dual) > 20
        assert dual <= types
