"""Videos and texts as files: what joint training reads, decodes and crops."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dits_adapter.data.pairs import split_videos
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.encoders.clip import preprocess
from dits_adapter.errors import InputError, VideoError
from dits_adapter.video.decode import Frame, Video

Transform = Callable[[Frame], NDArray[Any]]

ReadClip = Callable[[str, int, Transform], NDArray[Any]]
"""(video, number of frames, transform of each frame) -> the transformed frames, (f, …)."""


@dataclass(frozen=True)
class Captions:
    """Videos and the texts that describe them; several texts may share a video.

    Attributes:
        videos: files.
        texts: one a (text, video) pair.
        labels: row in `videos` of each text's video, (n,) int64.
    """

    videos: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Captions:
        """Gather (video, text) pairs; each video is listed once, in the order of its first appearance."""
        rows: dict[str, int] = {}
        labels, texts = [], []
        for video, text in pairs:
            labels.append(rows.setdefault(video, len(rows)))
            texts.append(text)
        return cls(tuple(rows), tuple(texts), np.asarray(labels, np.int64))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Captions:
        """Read a file of pairs (`pairs_file`).

        Raises:
            InputError: no such file, no pairs in it, or lines that are something else.
        """
        file = PairsFile(path)
        texts, labels = zip(*file.iter_texts(), strict=True)
        return cls(tuple(video.path for video in file.iter_videos()), texts, np.asarray(labels, np.int64))

    def of_videos(self, rows: Iterable[int]) -> Captions:
        """Return the pairs of the given videos only."""
        kept = set(rows)
        return Captions.of(
            (self.videos[label], text)
            for text, label in zip(self.texts, self.labels.tolist(), strict=True)
            if label in kept
        )

    def digest(self) -> str:
        """Return a SHA-256 of the texts and which of them share a video; the names of files play no part."""
        content = json.dumps([self.texts, self.labels.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def split(self, fraction: float, seed: int) -> tuple[Captions, Captions]:
        """Part the videos at random as `Pairs.split` does: the larger part, and `fraction` of the videos."""
        kept, held = split_videos(len(self.videos), fraction, seed)
        return self.of_videos(kept.tolist()), self.of_videos(held.tolist())


def read_clip(video: str, frames: int, transform: Transform) -> NDArray[Any]:
    """Decode the middles of equal intervals of a video file, transforming each frame as it comes: (f, …)."""
    with Video(video) as file:
        return file.frames(frames, transform=transform).frames


def find_broken(
    videos: Sequence[str], frames: int, read: ReadClip = read_clip, *, workers: int = 4, progress: bool = True
) -> list[VideoError]:
    """Decode every video once and return what goes wrong: hours into a training is too late to learn it.

    Args:
        videos: files.
        frames: frames a clip.
        read: how a file is decoded.
        workers: threads.
        progress: show a progress bar.
    """

    def error_of(video: str) -> VideoError | None:
        try:
            read(video, frames, lambda frame: frame[:1, :1])
        except VideoError as error:
            return error
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        errors = tqdm(
            pool.map(error_of, videos),
            total=len(videos),
            desc="checking videos",
            unit="video",
            disable=not progress,
        )
        return [error for error in errors if error is not None]


def random_crop(frame: Frame, size: int, key: Sequence[int], flip: bool) -> Frame:
    """Crop half to all of a frame's area at an aspect of 3:4 to 4:3, flip it with probability ½, and resize it.

    The draw follows from the key and the frame's size alone: all frames of a clip are cropped alike, as X-Pool
    does (its `RandomResizedCrop(.5–1)`; resized as CLIP's own preprocessing, bicubic with antialiasing).

    Args:
        frame: (h, w, 3) uint8 RGB.
        size: side of the result in pixels.
        key: non-negative seeds.
        flip: whether to flip; not where captions speak of left and right.

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


@dataclass(frozen=True)
class ClipLoader:
    """Decodes videos to what CLIP's image tower takes.

    Attributes:
        frames: frames a clip.
        image_processor: CLIP's own.
        read: how a file is decoded.
    """

    frames: int
    image_processor: Any
    read: ReadClip = read_clip

    def __call__(self, video: str, augment: Callable[[Frame], Frame] | None = None) -> Tensor:
        """Decode a video, `augment` and preprocess its frames: (f, 3, size, size) float32."""

        def transform(frame: Frame) -> NDArray[Any]:
            return preprocess(self.image_processor, [frame if augment is None else augment(frame)])[0]

        return torch.from_numpy(self.read(video, self.frames, transform))


def die_with_parent(worker: int) -> None:
    """End this process when the one that trains is gone, even if killed: a `worker_init_fn` of a DataLoader.

    A DataLoader's own watch looks at the parent's id, which for a worker of a fork server is the server's.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ClipDataset(Dataset[dict[str, Any]]):
    """Item i is video i as it is, for evaluation."""

    def __init__(self, videos: Sequence[str], load: ClipLoader) -> None:
        self.videos = videos
        self.load = load

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.load(self.videos[index])}


class TrainingDataset(Dataset[dict[str, Any]]):
    """Item i is the i-th pair of the whole training, all epochs in a row, cropped at random.

    Which pair and which crop follow from the seed and i alone, so that resumed runs, and runs on any number of
    processes and workers, see the same. A last incomplete batch of an epoch is left out.

    Args:
        captions: training pairs.
        load: decodes videos.
        size: side of the crops in pixels.
        epochs: passes over the pairs.
        batch_size: pairs a step, over all processes.
        flip: see `random_crop`.
        seed: of order and crops.

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
                f"{len(captions.texts)} training pairs are fewer than a batch of {batch_size}; lower batch_size."
            )
        self.captions = captions
        self.load = load
        self.size = size
        self.flip = flip
        self.seed = seed
        self.steps_per_epoch = len(captions.texts) // batch_size
        self.steps = epochs * self.steps_per_epoch
        self._batch_size = batch_size
        self._order = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch, place = divmod(index, self.steps_per_epoch * self._batch_size)
        if self._order[0] != epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._order = (epoch, random.permutation(len(self.captions.texts)))
        row = self._order[1][place]
        video = int(self.captions.labels[row])
        # One number more than the order's seeds, so that the two streams differ.
        crop = partial(random_crop, size=self.size, key=(self.seed, index, 1), flip=self.flip)
        pixels = self.load(self.captions.videos[video], crop)
        return {"text": self.captions.texts[row], "video": video, "pixels": pixels}
