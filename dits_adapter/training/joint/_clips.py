"""Clips: the sampled frames of a video file, decoded and preprocessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dits_adapter._progress import progress_bar
from dits_adapter.encoders._inputs import FrameInputs
from dits_adapter.errors import VideoError
from dits_adapter.video.decode import Frame, Video

__all__ = ["ClipLoader", "ReadClip", "find_failures", "read_clip"]

_Transform = Callable[[Frame], NDArray[Any]]

ReadClip = Callable[[str, int, _Transform], NDArray[Any]]
"""Function (video, number of frames, transform of each frame) -> the transformed frames, (f, …)."""


def read_clip(video: str, frames: int, transform: _Transform, *, limit: float | None = None) -> NDArray[Any]:
    """Decode the middles of equal intervals of a video file, transforming each frame as it comes: (f, …).

    Args:
        video: file.
        frames: frames a clip.
        transform: called on each frame, (h, w, 3) uint8.
        limit: seconds from the start after which the rest of the video does not count.
    """
    with Video(video) as file:
        return file.frames(frames, end=limit, transform=transform).frames


def find_failures(
    videos: Sequence[str], frames: int, read: ReadClip = read_clip, *, workers: int = 4, progress: bool = True
) -> list[VideoError]:
    """Decode every video once, before the training, and return the errors.

    Args:
        videos: files.
        frames: frames a clip.
        read: function that decodes a file.
        workers: threads.
        progress: show a progress bar on a terminal.
    """

    def error_of(video: str) -> VideoError | None:
        try:
            read(video, frames, lambda frame: frame[:1, :1])
        except VideoError as error:
            return error
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        errors = progress_bar(
            pool.map(error_of, videos),
            total=len(videos),
            desc="checking videos",
            unit="video",
            progress=progress,
        )
        return [error for error in errors if error is not None]


@dataclass(frozen=True)
class ClipLoader:
    """Loader of videos as the pixels that an encoder takes.

    Attributes:
        frames: frames a clip.
        prepare: pixels of the encoder.
        read: function that decodes a file.
    """

    frames: int
    prepare: FrameInputs
    read: ReadClip = read_clip

    def __call__(self, video: str, augment: Callable[[Frame], Frame] | None = None) -> Tensor:
        """Decode a video, `augment` its frames and prepare them: (f, …) float32."""

        def transform(frame: Frame) -> NDArray[Any]:
            return self.prepare([frame if augment is None else augment(frame)])[0]

        return torch.from_numpy(self.read(video, self.frames, transform))
