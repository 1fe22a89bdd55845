"""Two spaces of the same width are told apart, side by side; copies of one are not."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
from pydantic import ValidationError

from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from tests.spaces import made_up_space


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


@pytest.mark.parametrize(("tower", "side"), [("text_projection", "text"), ("visual_projection", "video")])
def test_a_tower_that_is_trained_further_changes_its_side_alone(spaces, tiny_clip, tower, side):
    clip = load_encoder(tiny_clip)
    weight = getattr(clip.model, tower).weight
    weight.data = weight.data.flip(0)
    moved = EmbeddingSpace.of(clip)
    (other,) = {"text", "video"} - {side}
    assert getattr(moved, other) == getattr(spaces[0], other)
    assert getattr(moved, side).weights_sha256 != getattr(spaces[0], side).weights_sha256
    with pytest.raises(SpaceMismatchError, match=f"the adapter goes with {side}s of .*same test ") as error:
        moved.require(spaces[0], mine="the adapter", theirs="the pairs")
    assert f"with {other}s" not in str(error.value)


def test_another_width_is_another_space():
    with pytest.raises(SpaceMismatchError, match="width 32 against 16"):
        made_up_space(32).video.require(made_up_space(16).video, mine="a", theirs="b")


@pytest.mark.parametrize(("field", "value"), [("frames", 8), ("pooling", "encoder")])
def test_videos_embedded_otherwise_are_searched_with_a_warning_and_not_kept_together(spaces, field, value):
    changed = spaces[0].video.model_copy(update={field: value})
    assert changed.differences(spaces[0].video) == []
    assert changed.fingerprint != spaces[0].video.fingerprint
    with pytest.warns(UserWarning, match=f"the adapter x is for videos .*collection y: {field} .*{value}"):
        changed.require(spaces[0].video, mine="the adapter x", theirs="the collection y")
    with pytest.raises(SpaceMismatchError, match=f"collection y: {field} .*{value}.*ask for the same"):
        changed.require(spaces[0].video, mine="the encoder", theirs="the collection y", together=True)


def test_unknown_frames_are_of_no_matter(spaces, recwarn):
    unknown = spaces[0].with_frames(None)
    for mine, theirs in ((unknown, spaces[0]), (spaces[0], unknown)):
        mine.require(theirs, mine="x", theirs="y", together=True)
    assert not recwarn
    assert "any number of frames" in str(unknown)


def test_half_precision_copy_passes_with_a_warning_for_each_side(spaces, tiny_clip, tmp_path):
    clip = load_encoder(tiny_clip)
    shutil.copytree(tiny_clip, tmp_path / "half")
    clip.model.half().save_pretrained(tmp_path / "half")
    half = EmbeddingSpace.of(load_encoder(tmp_path / "half"))
    assert half.text.weights_sha256 != spaces[0].text.weights_sha256
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        half.require(spaces[0], mine="the adapter", theirs="the pairs")
    texts, images = (str(warning.message) for warning in caught)
    assert "embed the test texts alike (cosine of at least " in texts
    assert "embed the test images alike" in images
    assert "trained further" in images


def test_another_preprocessing_is_another_space_and_is_named(spaces, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "preprocessing")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["image_mean"] = [0.0, 0.0, 0.9]
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    other = EmbeddingSpace.of(load_encoder(folder))
    assert other.text.differences(spaces[0].text) == []
    images, name = other.video.differences(spaces[0].video)
    assert "test images" in images
    assert name.startswith("preprocessing 'CLIPImageProcessorPil ")


class TestTwoEncoders:
    def test_texts_and_videos_of_two_encoders_share_no_space_unless_said(self):
        space = made_up_space(32, text_width=16)
        assert str(space).startswith("texts of text-0 [")
        with pytest.raises(InputError, match=r"texts of text-0 and videos of video-0 lie in two .*strength 1"):
            space.require_shared()
        with pytest.raises(ValidationError, match="texts of width 16 and videos of width 32 share no space"):
            EmbeddingSpace(text=space.text, video=space.video)

    def test_a_text_tower_beside_the_images_of_another_encoder(self, spaces):
        beside = EmbeddingSpace(text=spaces[1].text, video=spaces[0].video)
        beside.require_shared()
        beside.video.require(spaces[0].video, mine="the query", theirs="the collection")
        with pytest.raises(SpaceMismatchError, match="train an adapter for the other; the vectors of videos can"):
            beside.require(spaces[0], mine="the adapter", theirs="the pairs")


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ({"weights_sha256": None}, "given together"),
        ({"canaries": [[1.0, 0.0]]}, "not vectors of width 32"),
        ({"canaries": []}, "not vectors of width 32"),
        ({"encoder": ""}, "at least 1 character"),
    ],
)
@pytest.mark.parametrize("side", [TextSide, VideoSide])
def test_half_a_side_is_refused(spaces, side, sides, reason):
    whole = (spaces[0].text if side is TextSide else spaces[0].video).model_dump()
    with pytest.raises(ValidationError, match=reason):
        side.model_validate(whole | sides)
