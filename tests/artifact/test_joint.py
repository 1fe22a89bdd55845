"""An artifact that bundles the CLIP it was trained with: complete, checked byte by byte, in a space of its own."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError, SpaceMismatchError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.xpool import XPool
from tests.spaces import renamed


@pytest.fixture(scope="module")
def trained(tiny_clip, other_clip):
    """What joint training of `tiny_clip` ends with, were `other_clip` its result."""
    torch.manual_seed(0)
    head = XPool(32)
    torch.nn.init.normal_(head.q_proj.weight)
    space = renamed(EmbeddingSpace.of(load_encoder(other_clip), frames=3), "mine")
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1, steps=2)).eval()
    return Artifact(adapter, space, {"base_model": "somebody/clip"}, encoder=other_clip, xpool=head)


@pytest.fixture
def saved(trained, tmp_path):
    return trained.save(tmp_path / "mine")


def test_it_loads_as_it_was_saved(trained, saved, other_clip):
    loaded = Artifact.load(saved)
    assert loaded.kind == "joint"
    assert loaded.space == trained.space
    text, frames = torch.randn(2, 32), torch.randn(3, 4, 32)
    assert torch.equal(loaded.xpool(text, frames), trained.xpool.eval()(text, frames))
    bundled = {file.name: file.read_bytes() for file in loaded.encoder.iterdir()}
    assert bundled == {file.name: file.read_bytes() for file in other_clip.iterdir()}
    card = (saved / "README.md").read_text()
    assert "base_model: somebody/clip" in card
    assert "must be built with the bundled encoder" in card


def test_it_can_be_saved_again_also_over_itself(saved, tmp_path):
    copy = Artifact.load(saved).save(tmp_path / "copy")
    shutil.rmtree(saved)
    Artifact.load(copy).save(copy)
    assert Artifact.load(copy).kind == "joint"


def test_queries_and_videos_are_encoded_by_the_bundled_clip(saved, tiny_clip, other_clip):
    shutil.copytree(tiny_clip, saved.parent / "tiny-clip")  # must not be taken instead
    space = VideoEncoder.from_pretrained(saved).space
    space.require(EmbeddingSpace.of(load_encoder(other_clip), frames=3), mine="a", theirs="b")
    assert space.video.encoder == "mine"
    encoder = DITSQueryEncoder.from_pretrained(saved)
    plain = load_encoder(other_clip).embed_texts(["a dog"])[0]
    np.testing.assert_allclose(encoder.encode_document("a dog"), plain / np.linalg.norm(plain), atol=1e-6)


def test_an_index_of_the_original_space_is_refused(saved, tiny_clip):
    original = EmbeddingSpace.of(load_encoder(tiny_clip), frames=3)
    encoder = DITSQueryEncoder.from_pretrained(saved)
    with pytest.raises(SpaceMismatchError, match=r"the adapter goes with videos of mine .* tiny-clip"):
        encoder.space.require(original, mine="the adapter", theirs="the collection videos")


@pytest.mark.parametrize("name", ["encoder/model.safetensors", "encoder/tokenizer.json", "xpool.safetensors"])
def test_a_changed_byte_is_refused(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[-3] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: was changed or damaged"):
        Artifact.load(saved)


@pytest.mark.parametrize("name", ["encoder/model.safetensors", "encoder/config.json", "xpool.safetensors"])
def test_a_missing_file_is_refused(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: is missing"):
        Artifact.load(saved)


def test_without_its_encoder_it_is_refused(saved):
    shutil.rmtree(saved / "encoder")
    with pytest.raises(ArtifactError, match=r"encoder/config\.json: is missing"):
        Artifact.load(saved)


def test_a_smuggled_file_is_refused(saved):
    (saved / "encoder" / "pytorch_model.bin").write_bytes(b"code")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin: is no part"):
        Artifact.load(saved)


def test_its_head_reranks(trained, saved):
    encoder = DITSQueryEncoder.from_pretrained(saved)
    frames = torch.nn.functional.normalize(torch.randn(5, 4, 32), dim=2)
    query, text = (torch.from_numpy(encode("a dog")) for encode in (encoder.encode_query, encoder.encode_document))
    with torch.no_grad():
        expected = trained.xpool.eval().similarity(query[None], text[None], frames)[0].numpy()
    rerank = encoder.xpool_reranker("a dog")
    np.testing.assert_allclose(rerank(list(frames.numpy())), expected, atol=1e-6)
    uneven = [frames[0].numpy(), frames[1, :2].numpy(), frames[2].numpy()]
    np.testing.assert_allclose(rerank(uneven)[[0, 2]], expected[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(rerank(uneven)[1], rerank([uneven[1]])[0], atol=1e-6)
    with pytest.raises(InputError, match="no X-Pool head"):
        DITSQueryEncoder.from_pretrained("demo-dits").xpool_reranker("a dog")
