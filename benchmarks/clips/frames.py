"""Single frames with short captions, to train the small CLIP on; they share no scene with the clips."""

from __future__ import annotations

import multiprocessing
import random
from functools import partial

import numpy as np
from PIL import Image

from benchmarks.clips.captions import frame_caption
from benchmarks.clips.scenes import Pixels, Scene, render, sample_scene
from dits_adapter._progress import progress_bar

__all__ = ["captions", "draw", "moments"]

Moment = tuple[Scene, float]  # a scene and the second at which to look


def moments(purpose: str, count: int) -> list[Moment]:
    """Return one moment in each of `count` scenes, which belong to this purpose alone."""
    looks = []
    for index in range(count):
        name = f"{purpose}-{index:06d}"
        scene = sample_scene(name)
        looks.append((scene, scene.seconds * random.Random(f"moment of {name}").random()))
    return looks


def captions(looks: list[Moment]) -> list[str]:
    """Return one caption for each moment, always the same."""
    return [frame_caption(scene, second, random.Random(f"words for {scene.name}")) for scene, second in looks]


def draw(looks: list[Moment], side: int, workers: int | None = None) -> Pixels:
    """Draw the frames, squeezed to squares as `CLIPImageProcessor` does it: (len(looks), side, side, 3) uint8."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        drawn = pool.imap(partial(_draw, side), looks, chunksize=128)
        return np.stack(list(progress_bar(drawn, total=len(looks), desc="drawing frames", unit="frame")))


def _draw(side: int, look: Moment) -> Pixels:
    picture = Image.fromarray(render(*look))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
