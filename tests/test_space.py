"""Two spaces of the same width are told apart; copies of one are not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from dits_adapter.encoders.clip import ClipSource, load_clip, weights_digest
from dits_adapter.errors import ArtifactError, SpaceMismatchError
from dits_adapter.space import EmbeddingSpace


@pytest.fixture(scope="module")
def spaces(tiny_clip, other_clip):
    return [EmbeddingSpace.of(load_clip(folder)) for folder in (tiny_clip, other_clip)]


def test_survives_json(spaces):
    assert EmbeddingSpace.model_validate_json(spaces[0].model_dump_json()) == spaces[0]
    assert len(spaces[0].fingerprint) == 16


def test_same_model_same_space(spaces, tiny_clip):
    again = EmbeddingSpace.of(load_clip(tiny_clip))
    assert again == spaces[0]
    again.require(spaces[0], mine="a", theirs="b")


def test_another_encoder_of_the_same_width_is_named(spaces):
    with pytest.raises(SpaceMismatchError) as error:
        spaces[0].require(spaces[1], mine="the adapter x", theirs="the collection y")
    message = str(error.value)
    for part in ("the adapter x", "the collection y", "tiny-clip", "other-clip", "test texts", "test images"):
        assert part in message


@pytest.mark.parametrize(("field", "value"), [("frames", 8), ("width", 16)])
def test_each_field_counts(spaces, field, value):
    changed = spaces[0].model_copy(update={field: value})
    assert field in changed.differences(spaces[0])[0]
    assert changed.fingerprint != spaces[0].fingerprint


def test_half_precision_copy_passes_with_a_warning(spaces, tiny_clip, tmp_path):
    clip = load_clip(tiny_clip)
    shutil.copytree(tiny_clip, tmp_path / "half")
    clip.model.half().save_pretrained(tmp_path / "half")
    half = EmbeddingSpace.of(load_clip(tmp_path / "half"))
    assert half.weights_sha256 != spaces[0].weights_sha256
    with pytest.warns(UserWarning, match=r"cosine of at least \d\.\d{5}\).*taken for one space.*trained further"):
        assert half.differences(spaces[0]) == []


def test_another_preprocessing_is_another_space(spaces, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "preprocessing")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["image_mean"] = [0.0, 0.0, 0.9]
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    assert "test images" in EmbeddingSpace.of(load_clip(folder)).differences(spaces[0])[0]


def test_digest_sees_weights_only():
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert weights_digest(first) == weights_digest(second)
    assert weights_digest(torch.nn.Sequential(first)) == weights_digest(second)
    with torch.no_grad():
        second.weight[0, 0] += 1e-6
    assert weights_digest(first) != weights_digest(second)


class TestClip:
    def test_texts_and_images_of_any_number(self, tiny_clip):
        clip = load_clip(tiny_clip)
        assert clip.embed_texts([]).shape == (0, 32)
        assert clip.embed_images([]).shape == (0, 32)
        texts = ["a", "a much longer text than the other", "", "naïve 日本語 🎬"]
        together = clip.embed_texts(texts, batch_size=3)
        alone = torch.cat([clip.embed_texts([text]) for text in texts])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        assert clip.embed_images([np.zeros((40, 50, 3), np.uint8)]).shape == (1, 32)

    def test_sentence_transformers_layout(self, tiny_clip, tmp_path):
        shutil.copytree(tiny_clip, tmp_path / "st" / "0_CLIPModel")
        loaded = load_clip(tmp_path / "st")
        assert weights_digest(loaded.model) == weights_digest(load_clip(tiny_clip).model)

    def test_pickled_weights_are_refused(self, tiny_clip, tmp_path):
        folder = shutil.copytree(tiny_clip, tmp_path / "pickled")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ArtifactError, match="no safetensors"):
            load_clip(folder)

    def test_other_models_are_refused(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ArtifactError, match="'bert'"):
            load_clip(tmp_path)

    @pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
    def test_missing_folders_are_named(self, name):
        with pytest.raises(ArtifactError, match="no such folder"):
            ClipSource.find(name)

    def test_truncated_weights_are_refused(self, tiny_clip, tmp_path):
        folder = shutil.copytree(tiny_clip, tmp_path / "truncated")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(ArtifactError, match="truncated"):
            load_clip(folder)

    def test_missing_tensors_are_not_left_random(self, tiny_clip, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(tiny_clip, tmp_path / "lacking")
        weights = load_file(folder / "model.safetensors")
        del weights["visual_projection.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ArtifactError, match=r"lack 1 tensors \(visual_projection"):
            load_clip(folder)

    @pytest.mark.parametrize("nested", [True, False])
    def test_hub_ids_need_no_network_once_cached(self, nested, monkeypatch):
        def download(repo, file, revision):
            assert (repo, file) == ("owner/clip", "0_CLIPModel/config.json")
            if not nested:
                raise ConnectionError("offline, and not in the cache")

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        assert ClipSource.find("owner/clip").subfolder == ("0_CLIPModel" if nested else "")
