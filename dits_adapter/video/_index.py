"""Index of a video file: one pass over its packets, in which nothing is decoded."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import VideoError
from dits_adapter.video._packages import error_line, load_package

__all__ = ["FrameIndex", "read_frame_index"]

_NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "ico", "idf", "image2", "sdp", "tty", "xbin"})
"""Formats that FFmpeg reads as video and that are none: pictures, text, and lists of other files."""

_TICK = 1e-6
"""Seconds by which a frame may start late and still count as shown: timestamps are rounded in the file."""


@dataclass(frozen=True)
class FrameIndex:
    """Times and keyframes of a file's video stream, as its packets state them.

    Attributes:
        container: FFmpeg's name of the file's format.
        pts: (m,) int64 ascending presentation timestamps, in units of `time_base`.
        keys: (k,) int64 ascending numbers (positions in `pts`) of the keyframes.
        key_dts: (k,) int64 decoding timestamps of the keyframes.
        display_order: False where frames are reordered and the container has no times for that (H.264 in AVI):
            then the k-th frame shown is not the one that carries the k-th timestamp.
        time_base: seconds a unit.
        times: (m,) float64 seconds from the first frame.
        duration: seconds from the start of the first frame to the end of the last.
    """

    container: str
    pts: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    key_dts: npt.NDArray[np.int64]
    display_order: bool
    time_base: float
    times: npt.NDArray[np.float64]
    duration: float

    def shown_at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the number of the frame on screen at each time: the last one that has started."""
        return np.maximum(np.searchsorted(self.times, times + _TICK, side="right") - 1, 0)


class _FramePacket(NamedTuple):
    """Packet of one frame; times in units of the stream's time base."""

    pts: int
    dts: int
    duration: int
    is_key: bool


def read_frame_index(path: str) -> FrameIndex:
    """List the frames of a file's main video stream without decoding any.

    Raises:
        VideoError: the file is not a readable video, or ends before its header says that it should.
    """
    av = load_package("pyav")
    _require_regular(path)
    try:
        # An absolute path, as "a:b.mp4" reads like a protocol; broken tags are no reason to refuse a video.
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            name = container.format.name
            stream = container.streams.best("video")
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:  # an audio cover
                raise VideoError(path, "holds no video stream")
            if name.endswith("_pipe") or name in _NOT_VIDEO:
                raise VideoError(path, f"is no video ({container.format.long_name})")
            frames, reached = _read_packets(container, stream)
            if not frames:
                raise VideoError(path, "has a video stream without frames")
            promised = (container.duration or 0) / av.time_base
            rate = float(stream.guessed_rate or 25)
            if name == "avi":  # its duration is scaled down to the size of the file, its frame count is not
                promised = max(promised, stream.frames / rate)
            time_base = float(stream.time_base)
            untimed = name == "avi" and stream.codec_context.has_b_frames
    except av.error.FFmpegError as error:
        raise VideoError(
            path, f"is not a video, or is cut off before its end (FFmpeg: {error_line(error)})"
        ) from None
    if promised - reached > max(0.5, 0.1 * promised):
        raise VideoError(path, f"is truncated: {promised:.2f} s long by its header, data for {reached:.2f} s")
    shown, decoded, lengths, is_key = (np.array(column) for column in zip(*frames, strict=True))
    pts, first = np.unique(shown, return_index=True)
    keys = np.flatnonzero(is_key[first])
    length = lengths if lengths.any() else math.ceil(1 / (rate * time_base))
    return FrameIndex(
        container=name,
        pts=pts,
        keys=keys,
        key_dts=decoded[first][keys],
        display_order=not (untimed and bool((np.diff(shown) > 0).all())),
        time_base=time_base,
        times=(pts - pts[0]) * time_base,
        duration=float((shown + length).max() - pts[0]) * time_base,
    )


def _require_regular(path: str) -> None:
    """Refuse a path that is no readable file before a decoder opens it: a pipe, for one, would block for ever."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise VideoError(path, f"is {kind}, not a file")
        if status.st_size == 0:
            raise VideoError(path, "is empty (0 bytes)")
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        raise VideoError(path, error_line(error).lower()) from None


def _read_packets(container: Any, stream: Any) -> tuple[list[_FramePacket], float]:
    """Read all packets: the frames of the video stream, and up to which second any stream has data."""
    frames: list[_FramePacket] = []
    ends: dict[int, int] = {}  # of each stream, in its own time base
    for packet in container.demux():
        if packet.pts is None:
            continue
        track, duration = packet.stream.index, packet.duration or 0
        ends[track] = max(ends.get(track, 0), packet.pts + duration)
        # An edit list discards frames: they help to decode others and are never shown.
        if track == stream.index and not packet.is_discard and not packet.is_corrupt:
            dts = packet.pts if packet.dts is None else packet.dts
            frames.append(_FramePacket(packet.pts, dts, duration, packet.is_keyframe))
    reached = max((float(end * container.streams[track].time_base) for track, end in ends.items()), default=0.0)
    return frames, reached
