"""Two spaces of the same width are told apart; copies of one are not."""

from __future__ import annotations

import json
import shutil

import pytest

from dits_adapter.encoders import load_encoder
from dits_adapter.errors import SpaceMismatchError
from dits_adapter.space import EmbeddingSpace


@pytest.fixture(scope="module")
def spaces(tiny_clip, other_clip):
    return [EmbeddingSpace.of(load_encoder(folder)) for folder in (tiny_clip, other_clip)]


def test_survives_json(spaces):
    assert EmbeddingSpace.model_validate_json(spaces[0].model_dump_json()) == spaces[0]
    assert len(spaces[0].fingerprint) == 16


def test_same_model_same_space(spaces, tiny_clip):
    again = EmbeddingSpace.of(load_encoder(tiny_clip))
    assert again == spaces[0]
    again.require(spaces[0], mine="a", theirs="b")


def test_another_encoder_of_the_same_width_is_named(spaces):
    with pytest.raises(SpaceMismatchError) as error:
        spaces[0].require(spaces[1], mine="the adapter x", theirs="the collection y")
    message = str(error.value)
    for part in ("the adapter x", "the collection y", "tiny-clip", "other-clip", "test texts", "test images"):
        assert part in message


def test_another_width_is_another_space(spaces):
    changed = spaces[0].model_copy(update={"width": 16})
    assert "width" in changed.differences(spaces[0])[0]
    assert changed.fingerprint != spaces[0].fingerprint


@pytest.mark.parametrize(("field", "value"), [("frames", 8), ("pooling", "encoder")])
def test_videos_embedded_otherwise_are_searched_with_a_warning_and_not_kept_together(spaces, field, value):
    changed = spaces[0].model_copy(update={field: value})
    assert changed.differences(spaces[0]) == []
    assert changed.fingerprint != spaces[0].fingerprint
    with pytest.warns(UserWarning, match=f"the adapter x is for videos .*collection y: {field} .*{value}"):
        changed.require(spaces[0], mine="the adapter x", theirs="the collection y")
    with pytest.raises(SpaceMismatchError, match=f"collection y: {field} .*{value}.*ask for the same"):
        changed.require(spaces[0], mine="the encoder", theirs="the collection y", together=True)


def test_unknown_frames_are_of_no_matter(spaces, recwarn):
    unknown = spaces[0].model_copy(update={"frames": None})
    for mine, theirs in ((unknown, spaces[0]), (spaces[0], unknown)):
        mine.require(theirs, mine="x", theirs="y", together=True)
    assert not recwarn
    assert "any number of frames" in str(unknown)


def test_half_precision_copy_passes_with_a_warning(spaces, tiny_clip, tmp_path):
    clip = load_encoder(tiny_clip)
    shutil.copytree(tiny_clip, tmp_path / "half")
    clip.model.half().save_pretrained(tmp_path / "half")
    half = EmbeddingSpace.of(load_encoder(tmp_path / "half"))
    assert half.weights_sha256 != spaces[0].weights_sha256
    with pytest.warns(UserWarning, match=r"cosine of at least \d\.\d{5}\).*taken for one space.*trained further"):
        assert half.differences(spaces[0]) == []


def test_another_preprocessing_is_another_space(spaces, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "preprocessing")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["image_mean"] = [0.0, 0.0, 0.9]
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    assert "test images" in EmbeddingSpace.of(load_encoder(folder)).differences(spaces[0])[0]
