"""Random crops, and the order in which training sees pairs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError
from dits_adapter.training.joint._datasets import TrainingDataset, random_crop
from dits_adapter.training.joint.captions import Captions


def captions(videos: int, texts: int = 1) -> Captions:
    return Captions.of((f"v{i}", f"text {j} of {i}") for j in range(texts) for i in range(videos))


def ramps(height: int, width: int) -> np.ndarray:
    """A frame whose red says how far right, whose green how far down a pixel is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), 0 * x], axis=-1).astype(np.uint8)


@given(height=st.integers(8, 120), width=st.integers(8, 120), seed=st.integers(0, 999))
def test_a_crop_is_part_of_the_frame_of_the_stated_size_and_shape(height, width, seed):
    frame = ramps(height, width)
    crop = random_crop(frame, 64, (seed,), flip=False).astype(float)
    assert crop.shape == (64, 64, 3)
    # What share of the frame the crop spans, read off its ramps; a pixel of either end is lost at most.
    w = (crop[:, -1, 0].mean() - crop[:, 0, 0].mean()) / 255 * (width - 1) + 1
    h = (crop[-1, :, 1].mean() - crop[0, :, 1].mean()) / 255 * (height - 1) + 1
    assert w <= width + 1
    assert h <= height + 1
    if height <= 2 * width and width <= 2 * height:  # longer frames fall back on a crop of the middle
        assert 0.5 * height * width <= (w + 2) * (h + 2)
    assert (w + 2) / (h - 2) >= 3 / 4
    assert (w - 2) / (h + 2) <= 4 / 3


def test_all_frames_of_a_clip_are_cropped_alike_and_keys_differ():
    frame = ramps(48, 64)
    crop = partial(random_crop, size=32, flip=True)
    assert np.array_equal(crop(frame, key=(1, 2)), crop(frame, key=(1, 2)))
    assert not np.array_equal(crop(frame, key=(1, 2)), crop(frame, key=(1, 3)))
    negative = 255 - crop(255 - frame, key=(1, 2)).astype(int)  # another picture, the same crop
    assert np.abs(negative - crop(frame, key=(1, 2))).max() <= 1


def test_half_of_the_clips_are_mirrored():
    frame = ramps(48, 64)
    mirrored = [random_crop(frame, 8, (key,), flip=True)[0, 0, 0] > 128 for key in range(200)]
    assert 70 < sum(mirrored) < 130
    assert not any(random_crop(frame, 8, (key,), flip=False)[0, 0, 0] > 128 for key in range(50))


def test_the_encoders_preprocessing_leaves_a_crop_as_it_is(tiny_clip):
    clip = load_encoder(tiny_clip)
    crop = random_crop(ramps(48, 64), 32, (0,), flip=False)
    processor = clip.frames.image_processor
    expected = (crop / 255 - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(clip.preprocess([crop])[0].transpose(1, 2, 0), expected, atol=1e-5)


def dataset(pairs: Captions, **changes: object) -> TrainingDataset:
    def load(video, augment):
        return torch.as_tensor(augment(np.asarray(Image.new("RGB", (9, 9)))).astype(np.float32))

    options = {"size": 4, "epochs": 3, "batch_size": 4, "flip": True, "seed": 0, **changes}
    return TrainingDataset(pairs, load, **options)


def test_an_epoch_sees_each_pair_once_and_leaves_out_an_incomplete_batch():
    pairs = captions(5, 2)
    data = dataset(pairs)
    assert (data.steps_per_epoch, data.steps, len(data)) == (2, 6, 24)
    seen = [data[i] for i in range(24)]
    epochs = [[item["text"] for item in seen[start : start + 8]] for start in (0, 8, 16)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1]
    for item in seen:
        assert pairs.videos[item["video"]] == f"v{item['text'].split()[-1]}"


def test_an_item_follows_from_seed_and_place_alone():
    one, other = dataset(captions(8)), dataset(captions(8))
    backwards = {i: other[i]["text"] for i in reversed(range(24))}
    assert [one[i]["text"] for i in range(24)] == [backwards[i] for i in range(24)]
    assert [one[i]["text"] for i in range(24)] != [dataset(captions(8), seed=1)[i]["text"] for i in range(24)]


def test_fewer_pairs_than_a_batch():
    with pytest.raises(InputError, match="3 training pairs are fewer than a batch of 4; lower batch_size"):
        dataset(captions(3))
