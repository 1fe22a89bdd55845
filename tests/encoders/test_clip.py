"""CLIP as an encoder: batches, layouts, damaged and pickled checkpoints."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from dits_adapter.encoders import load_encoder
from dits_adapter.encoders._torch import weights_digest
from dits_adapter.errors import ArtifactError
from tests.conftest import embed_images


def test_digest_sees_weights_only():
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert weights_digest(first) == weights_digest(second)
    assert weights_digest(torch.nn.Sequential(first)) == weights_digest(second)
    with torch.no_grad():
        second.weight[0, 0] += 1e-6
    assert weights_digest(first) != weights_digest(second)


def test_texts_and_images_of_any_number(tiny_clip):
    clip = load_encoder(tiny_clip)
    assert clip.embed_texts([]).shape == (0, 32)
    assert embed_images(clip, []).shape == (0, 32)
    texts = ["a", "a much longer text than the other", "x", "naïve 日本語 🎬"]
    together = clip.embed_texts(texts, batch_size=3)
    alone = np.concatenate([clip.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert embed_images(clip, [np.zeros((40, 50, 3), np.uint8)]).shape == (1, 32)


def test_sentence_transformers_layout(tiny_clip, tmp_path):
    shutil.copytree(tiny_clip, tmp_path / "st" / "0_CLIPModel")
    modules = [{"path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (tmp_path / "st" / "modules.json").write_text(json.dumps(modules))
    loaded = load_encoder(tmp_path / "st")
    assert weights_digest(loaded.model) == weights_digest(load_encoder(tiny_clip).model)


def test_pickled_weights_are_refused(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="no safetensors"):
        load_encoder(folder)


def test_truncated_weights_are_refused(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "truncated")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="truncated"):
        load_encoder(folder)


def test_missing_tensors_are_not_left_random(tiny_clip, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_clip, tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lack 1 tensors \(visual_projection"):
        load_encoder(folder)
