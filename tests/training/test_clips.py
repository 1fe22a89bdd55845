"""Captions of video files, random crops, and the order in which training sees pairs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dits_adapter.data.pairs import split_videos
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError, VideoError
from dits_adapter.training.joint.clips import (
    Captions,
    ClipDataset,
    ClipLoader,
    TrainingDataset,
    find_broken,
    random_crop,
    read_clip,
)
from dits_adapter.video.decode import decode_frames
from tests.video.clips import number_of, picture, write_clip


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A clip whose frames are numbered 0 to 23."""
    return write_clip(tmp_path_factory.mktemp("films") / "film.mp4", [picture(i) for i in range(24)])


def captions(videos: int, texts: int = 1) -> Captions:
    return Captions.of((f"v{i}", f"text {j} of {i}") for j in range(texts) for i in range(videos))


def test_captions_of_a_file(tmp_path):
    lines = [{"video": "b.mp4", "text": ["one", "two"]}, {"video": "a.mp4", "text": "three"}]
    lines += [{"video": "b.mp4", "text": "four"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = Captions.read(tmp_path / "pairs.jsonl")
    assert read.videos == (str(tmp_path / "b.mp4"), str(tmp_path / "a.mp4"))
    assert read.texts == ("one", "two", "three", "four")
    assert read.labels.tolist() == [0, 0, 1, 0]


@given(videos=st.integers(2, 12), texts=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_split_is_the_one_of_cached_pairs_and_keeps_texts_with_their_videos(videos, texts, seed):
    whole = captions(videos, texts)
    kept, held = whole.split(0.3, seed)
    rows = split_videos(videos, 0.3, seed)
    assert [sorted(part.videos) for part in (kept, held)] == [sorted(f"v{i}" for i in part) for part in rows]
    for part in (kept, held):
        assert all(
            text.endswith(f" {part.videos[row][1:]}") for text, row in zip(part.texts, part.labels, strict=True)
        )
    assert len(kept.texts) + len(held.texts) == len(whole.texts)


def test_the_digest_is_of_texts_and_grouping():
    base = captions(3)
    moved = Captions(("x", "y", "z"), base.texts, base.labels)
    assert moved.digest() == base.digest()
    assert Captions(base.videos, base.texts, base.labels[::-1]).digest() != base.digest()


def test_broken_files_are_found(film, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    videos = [str(film), str(tmp_path / "text.mp4"), str(tmp_path / "gone.mp4")]
    found = find_broken(videos, 4, progress=False)
    assert [error.path for error in found] == videos[1:]
    assert all(isinstance(error, VideoError) for error in found)


def test_a_clip_is_the_middles_of_its_intervals(film):
    frames = read_clip(str(film), 4, lambda frame: frame)
    assert [number_of(frame) for frame in frames] == [3, 9, 15, 21]


def test_a_clip_is_preprocessed_as_the_encoder_does(film, tiny_clip):
    clip = load_encoder(tiny_clip)
    item = ClipDataset([str(film)], ClipLoader(4, clip.image_processor))[0]
    np.testing.assert_array_equal(item["pixels"], clip.preprocess(list(decode_frames(film, 4).frames)))


ORPHAN = """
import multiprocessing, os, sys, time
from dits_adapter.training.joint.clips import die_with_parent

def work(file):
    die_with_parent(0)
    with open(file, "w") as done:
        done.write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("forkserver").Process(target=work, args=(sys.argv[1],)).start()
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the worker in /proc")
def test_workers_end_with_a_killed_training(tmp_path):
    (tmp_path / "script.py").write_text(ORPHAN)
    number = tmp_path / "number"
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(number)])
    try:
        wait_until(lambda: number.exists() and number.read_text())
        worker = Path("/proc") / number.read_text()
        assert worker.exists()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not worker.exists(), seconds=20)


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- Crops --------------------------------------------------------------------------------------------------


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
    processor = clip.image_processor
    expected = (crop / 255 - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(clip.preprocess([crop])[0].transpose(1, 2, 0), expected, atol=1e-5)


# --- Order --------------------------------------------------------------------------------------------------


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
