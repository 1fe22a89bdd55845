"""Clips as they are decoded and preprocessed."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.encoders import load_encoder
from dits_adapter.errors import VideoError
from dits_adapter.training.joint._clips import ClipLoader, find_failures, read_clip
from dits_adapter.training.joint._datasets import ClipDataset
from dits_adapter.video.decode import Video, decode_frames
from tests.video.clips import number_of, picture, write_clip


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A clip whose frames are numbered 0 to 23."""
    return write_clip(tmp_path_factory.mktemp("films") / "film.mp4", [picture(i) for i in range(24)])


def test_broken_files_are_found(film, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    videos = [str(film), str(tmp_path / "text.mp4"), str(tmp_path / "gone.mp4")]
    found = find_failures(videos, 4, progress=False)
    assert [error.path for error in found] == videos[1:]
    assert all(isinstance(error, VideoError) for error in found)


def test_a_clip_is_the_middles_of_its_intervals(film):
    frames = read_clip(str(film), 4, lambda frame: frame)
    assert [number_of(frame) for frame in frames] == [3, 9, 15, 21]


def test_beyond_the_limit_nothing_counts(film):
    with Video(film) as video:
        half = video.duration / 2
    frames = read_clip(str(film), 4, lambda frame: frame, limit=half)
    assert [number_of(frame) for frame in frames] == [1, 4, 7, 10]


def test_a_clip_is_preprocessed_as_the_encoder_does(film, tiny_clip):
    clip = load_encoder(tiny_clip)
    item = ClipDataset([str(film)], ClipLoader(4, clip.frames))[0]
    np.testing.assert_array_equal(item["pixels"], clip.preprocess(list(decode_frames(film, 4).frames)))
