"""Datasets of joint training: pairs in their order with random crops, and videos to evaluate with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from dits_adapter._wording import counted
from dits_adapter.errors import InputError
from dits_adapter.training.joint._clips import ClipLoader
from dits_adapter.training.joint.captions import Captions
from dits_adapter.video.decode import Frame

__all__ = ["ClipDataset", "TrainingDataset", "random_crop"]


def random_crop(frame: Frame, size: int, key: Sequence[int], flip: bool) -> Frame:
    """Crop half to all of a frame's area at an aspect of 3:4 to 4:3, flip it with probability ½, and resize it.

    The draw follows from the key and the frame's size alone: all frames of a clip are cropped alike, as X-Pool
    does (its `RandomResizedCrop(.5–1)`; resized as CLIP's own preprocessing, bicubic with antialiasing).

    Args:
        frame: (h, w, 3) uint8 RGB.
        size: side of the result in pixels.
        key: non-negative seeds.
        flip: flip at random; turn off where captions mention left and right.

    Returns:
        (size, size, 3) uint8.
    """
    rng = np.random.default_rng(key)
    height, width = frame.shape[:2]
    for _ in range(10):
        area = rng.uniform(0.5, 1.0) * height * width
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            break
    else:  # a frame too long for that: the largest crop in the middle
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    box = (left, top, left + w, top + h)
    cropped = np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return cropped[:, ::-1] if flip and rng.random() < 0.5 else cropped


class ClipDataset(Dataset[dict[str, Any]]):
    """Videos to evaluate with: item i is video i, not cropped."""

    def __init__(self, videos: Sequence[str], load: ClipLoader) -> None:
        self.videos = videos
        self.load = load

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.load(self.videos[index])}


class TrainingDataset(Dataset[dict[str, Any]]):
    """Pairs to train on: item i is the i-th of the whole training, all epochs in a row, cropped at random.

    Which pair and which crop follow from the seed and i alone, so that resumed runs, and runs on any number of
    processes and workers, see the same. A last incomplete batch of an epoch is left out.

    Args:
        captions: training pairs.
        load: loads videos.
        size: side of the crops in pixels.
        epochs: passes over the pairs.
        batch_size: pairs a step, over all processes.
        flip: see `random_crop`.
        seed: seed of order and crops.

    Raises:
        InputError: fewer pairs than a batch.
    """

    def __init__(
        self,
        captions: Captions,
        load: ClipLoader,
        *,
        size: int,
        epochs: int,
        batch_size: int,
        flip: bool,
        seed: int,
    ) -> None:
        if len(captions.texts) < batch_size:
            raise InputError(
                f"{counted(len(captions.texts), 'training pair is', 'training pairs are')} fewer than a batch of "
                f"{batch_size}; lower batch_size."
            )
        self.captions = captions
        self.load = load
        self.size = size
        self.flip = flip
        self.seed = seed
        self.steps_per_epoch = len(captions.texts) // batch_size
        self.steps = epochs * self.steps_per_epoch
        self._batch_size = batch_size
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch, place = divmod(index, self.steps_per_epoch * self._batch_size)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = (epoch, rng.permutation(len(self.captions.texts)))
        row = self._order[1][place]
        video = int(self.captions.labels[row])
        # One number more than the order's seeds, so that the two streams differ.
        crop = partial(random_crop, size=self.size, key=(self.seed, index, 1), flip=self.flip)
        pixels = self.load(self.captions.videos[video], crop)
        return {"text": self.captions.texts[row], "video": video, "pixels": pixels}
