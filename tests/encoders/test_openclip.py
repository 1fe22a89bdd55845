"""Repositories of open_clip against open_clip itself; refusals need no open_clip."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dits_adapter import EmbeddingSpace, VideoEncoder, load_encoder
from dits_adapter.errors import ArtifactError, MissingExtraError
from dits_adapter.vectors import unit
from tests.encoders.test_frames import COLOR, GREY
from tests.no_texts import DIRTY

TEXTS = ["a photo of a dog", "A Much LONGER text than the other", "x", "abc " * 90, *DIRTY]
CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
}


def write_config(folder, **text):
    folder.mkdir()
    model = {**CONFIG["model_cfg"], "text_cfg": {**CONFIG["model_cfg"]["text_cfg"], **text}}
    (folder / "open_clip_config.json").write_text(json.dumps({**CONFIG, "model_cfg": model}))
    return folder


@pytest.fixture(scope="module")
def open_clip():
    try:
        import open_clip
    except Exception as error:
        pytest.skip(f"open_clip cannot be imported: {error!r}")
    return open_clip


@pytest.fixture(scope="module")
def repository(open_clip, tmp_path_factory):
    folder = write_config(tmp_path_factory.mktemp("open_clip") / "tiny-open-clip")
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@torch.inference_mode()
def test_equals_open_clip(open_clip, repository, caplog):
    ours = load_encoder(repository, device="cpu")
    assert not caplog.text
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{repository}")
    tokens = open_clip.get_tokenizer(f"local-dir:{repository}")(TEXTS)
    np.testing.assert_allclose(ours.embed_texts(TEXTS, batch_size=3), model.eval().encode_text(tokens), atol=1e-5)
    frames = [COLOR, GREY, COLOR[:33, :51], COLOR[:3]]
    pixels = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
    embedded = ours.embed([ours.preprocess([frame]) for frame in frames], batch_size=3)
    np.testing.assert_allclose(embedded.frames[:, 0], model.encode_image(pixels), atol=1e-5)
    assert ours.count_tokens(TEXTS)[:4] == [7, 9, 3, 92]
    assert (ours.max_tokens, ours.width) == (77, 32)


def test_has_a_space_of_its_towers(repository):
    space = EmbeddingSpace.of(load_encoder(repository, device="cpu"))
    assert space.text.weights_sha256 != space.video.weights_sha256
    assert VideoEncoder.from_pretrained(repository).space.video.pooling == "mean"


def test_cleans_texts_as_openai_does(repository):
    vectors = load_encoder(repository, device="cpu").embed_texts([*DIRTY, *DIRTY.values()])
    first, second = np.split(unit(vectors), 2)
    np.testing.assert_allclose(np.sum(first * second, axis=1), 1, atol=1e-5)


def test_pickles_are_refused(tmp_path):
    folder = write_config(tmp_path / "pickled")
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ArtifactError, match="pickled: holds no safetensors"):
        load_encoder(folder)


def test_text_models_of_other_repositories_are_refused(open_clip, tmp_path):
    folder = write_config(tmp_path / "other", hf_model_name="someone/roberta")
    save_file({"x": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ArtifactError, match="built from someone/roberta, another repository"):
        load_encoder(folder)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    folder = write_config(tmp_path / "some")
    save_file({"x": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(MissingExtraError, match=r"encoder some needs .*dits-adapter\[open-clip\]"):
        load_encoder(folder)
