"""Clips for look-alikes of the datasets."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.clips.captions import video_captions
from benchmarks.clips.dataset import write_clip
from benchmarks.clips.scenes import sample_scene
from benchmarks.datasets.lookalike import Clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Real, short and small video files with five captions each: 8 of train, 2 of val, 4 of test."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for split, count in {"train": 8, "val": 2, "test": 4}.items():
        for number in range(count):
            scene = sample_scene(f"{split} {number}")
            scene = dataclasses.replace(scene, width=64, height=48, fps=12, frames=12)
            path = folder / f"{split}{number}.mp4"
            write_clip(scene, path)
            made.setdefault(split, []).append(Clip(path, video_captions(scene)))
    return made
