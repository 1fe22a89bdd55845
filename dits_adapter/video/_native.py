"""Readers of video files through decord and torchcodec, for a process of their own: see `_child`."""

from __future__ import annotations

import os

import numpy as np

from dits_adapter.video._index import FrameIndex
from dits_adapter.video._packages import load_package
from dits_adapter.video._reader import Frame, FrameReader
from dits_adapter.video.limits import DecodeLimits

__all__ = ["DecordReader", "TorchCodecReader"]

_EXACT_SEEK = frozenset({"avi", "flv", "gif", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers in which a seek ends at the keyframe asked for."""


class DecordReader(FrameReader):
    """Reader through decord, where decord can be trusted; it turns frames upright itself, but mirrors none.

    Decord finds a frame by counting from a keyframe, whose number it takes in decoding order for its number in
    display order, and it believes every seek. So it returns other frames than asked where the two orders
    differ (open groups of pictures, x265's default) or a seek lands elsewhere (transport streams).
    """

    def __init__(self, path: str, index: FrameIndex, limits: DecodeLimits) -> None:
        decord = load_package("decord")
        if index.container not in _EXACT_SEEK or not index.display_order:
            raise RuntimeError("it does not find the right frames in this kind of container")
        decord.logging.set_level(decord.logging.QUIET)
        # The smallest tolerance there is: it would else hand out a neighbor for a frame it cannot decode.
        self._video = decord.VideoReader(os.path.abspath(path), num_threads=1, fault_tol=1e-6)
        if len(self._video) != len(index.pts) or self._video.get_key_indices() != index.keys.tolist():
            raise RuntimeError("it does not find the right frames among these keyframes")

    def frame(self, number: int) -> Frame:
        frame = self._video[number].asnumpy()
        # At some small widths it takes the padding of a row for further channels (dmlc/decord issue 336).
        height, width = frame.shape[:2]
        return np.ascontiguousarray(frame.reshape(height, -1)[:, : 3 * width]).reshape(height, width, 3)


class TorchCodecReader(FrameReader):
    """Reader through torchcodec in its exact mode; the timestamp that comes with each frame is checked."""

    def __init__(self, path: str, index: FrameIndex, limits: DecodeLimits) -> None:
        if not index.display_order or index.container == "mpeg":
            raise RuntimeError("frames of this container cannot be told by their timestamps")
        self._index = index
        self._video = load_package("torchcodec").VideoDecoder(
            os.path.abspath(path),
            stream_index=index.stream,
            seek_mode="exact",
            num_ffmpeg_threads=1,
            dimension_order="NHWC",
        )

    def frame(self, number: int) -> Frame:
        frame = self._video.get_frame_at(number)
        expected = self._index.pts[number] * self._index.time_base
        if abs(frame.pts_seconds - expected) > self._index.time_base / 2:
            raise RuntimeError(f"returned the frame of {frame.pts_seconds:.3f} s for that of {expected:.3f} s")
        pixels: Frame = frame.data.numpy()
        return pixels
