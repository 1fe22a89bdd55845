"""Index of a video file: one pass over its packets, in which nothing is decoded."""

from __future__ import annotations

import math
import os
import stat
import struct
import time
import uuid
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import VideoError
from dits_adapter.video._clock import Gaps, find_gaps, read_clock
from dits_adapter.video._packages import error_line, load_package
from dits_adapter.video.limits import DecodeLimits

__all__ = ["FrameIndex", "open_video", "read_duration", "read_frame_index", "require_size"]

_NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "ico", "idf", "image2", "sdp", "tty", "xbin"})
"""Formats that FFmpeg reads as video and that are none: pictures, text, and lists of other files."""

_MEASURED = frozenset({"mpeg", "mpegts"})
"""Containers whose header states no duration: FFmpeg measures what is there, which is never truncated."""

_FROM_ZERO = frozenset({"asf", "matroska,webm", "nut"})
"""Containers whose duration is the time of the end; elsewhere it is the time from the first frame to the end.

In mp4 it is what the program that wrote the file took it for.
"""

_ASF_PROPERTIES = uuid.UUID("8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le
"""Identifier of the part of ASF's header that states the size of the file."""

_TICK = 1e-6
"""Seconds by which a frame may start late and still count as shown: timestamps are rounded in the file."""

_SANE = 1 << 60
"""Bound of timestamps that can be reckoned with: a thousand years in units of a nanosecond is less."""

_KEPT = 32
"""Bytes of memory that a decoder may take for each pixel of a frame: 17 frames in 4:2:0, and one in RGB."""

_CHECK_EVERY = 4096
"""Packets between two looks at the limits."""


@dataclass(frozen=True)
class FrameIndex:
    """Times and keyframes of a file's video stream, as its packets state them.

    Attributes:
        container: FFmpeg's name of the file's format.
        stream: number of the video stream in the file.
        pts: (m,) int64 ascending presentation timestamps, in units of `time_base`.
        keys: (k,) int64 ascending numbers (positions in `pts`) of the keyframes.
        key_dts: (k,) int64 decoding timestamps of the keyframes.
        display_order: False where frames are reordered and the container has no times for that (H.264 in AVI):
            then the k-th frame shown is not the one that carries the k-th timestamp. Also False where the times
            were repaired.
        time_base: seconds a unit.
        times: (m,) float64 seconds from the first frame.
        duration: seconds from the start of the first frame to the end of the last.
        gaps: stretches without a frame.
        remark: what is wrong with the file's own times and was repaired; empty where nothing is.
    """

    container: str
    stream: int
    pts: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    key_dts: npt.NDArray[np.int64]
    display_order: bool
    time_base: float
    times: npt.NDArray[np.float64]
    duration: float
    gaps: Gaps
    remark: str

    def shown_at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the number of the frame on screen at each time: the last one that has started."""
        return np.maximum(np.searchsorted(self.times, times + _TICK, side="right") - 1, 0)


class _Packets:
    """Packets of one stream's frames, in decoding order; times in units of the stream's time base."""

    def __init__(self) -> None:
        self.pts, self.dts, self.lengths = array("q"), array("q"), array("q")
        self.is_key, self.is_corrupt = array("b"), array("b")
        self.timed = True  # every packet states its decoding time
        self.untimed = 0  # packets without any time
        self.encrypted = False

    def __len__(self) -> int:
        return len(self.pts)


def read_frame_index(path: str, limits: DecodeLimits) -> FrameIndex:
    """List the frames of a file's main video stream without decoding any.

    Raises:
        VideoError: the file is not a readable video, ends before its header says that it should, or goes beyond
            the limits.
    """
    av, size = load_package("pyav"), _require_regular(path)
    with open_video(path, limits.seconds_for(size)) as (container, stream):
        name = container.format.name
        _require_frames(path, stream.frames, size, limits)
        packets, first, reached = _read_packets(path, container, size, limits)
        # A still may come first: the cover of a song, the photo of a motion photo.
        number = stream.index
        if len(packets[number]) <= 1:
            number = max(packets, key=lambda track: (len(packets[track]), track == stream.index))
        stream, frames = container.streams[number], packets[number]
        if stream.codec_context is None:
            raise VideoError(path, "is in a video codec that is not known here")
        if frames.encrypted:
            raise VideoError(path, "is encrypted")
        if not frames:
            if frames.untimed:
                raise VideoError(
                    path,
                    f"is a raw {name} stream without times; put it into a container: "
                    f"ffmpeg -i {os.path.basename(path)} -c copy video.mp4",
                )
            raise VideoError(path, "has a video stream without frames")
        promised = (container.duration or 0) / av.time_base
        rate = float(stream.guessed_rate or 25)
        if name == "avi":  # its duration is scaled down to the size of the file, its frame count is not
            promised = max(promised, stream.frames / rate)
        time_base = float(stream.time_base)
        untimed = name == "avi" and stream.codec_context.has_b_frames
        require_size(path, stream.codec_context.width, stream.codec_context.height, limits)
    if name == "asf" and not promised:  # FFmpeg leaves out the duration where the size is another one
        _require_whole_asf(path, size)
    if first > 0:
        reached -= first
        if promised > first and (name in _FROM_ZERO or _is_whole_mp4(path, size)):
            promised -= first
    index = _index_of(path, frames, name, number, rate, time_base, untimed)
    whole = name in _MEASURED or (name == "avi" and _is_whole_riff(path, size))
    if index.remark and not index.display_order:  # a clock that is wrong does not tell how much is there
        whole = True
    if not whole and promised - reached > max(0.5, 0.1 * promised):
        raise VideoError(path, f"is truncated: {promised:.2f} s long by its header, data for {reached:.2f} s")
    return index


def read_duration(path: str, limits: DecodeLimits) -> float | None:
    """Return the seconds that a video lasts by its header; no packet is read.

    Returns:
        The seconds; None where the header says nothing, or claims more seconds than the file has bytes.

    Raises:
        VideoError: the file is not a video, as far as its header tells.
    """
    av, size = load_package("pyav"), _require_regular(path)
    with open_video(path, limits.seconds_for(size)) as (container, stream):
        _require_frames(path, stream.frames, size, limits)
        seconds = float(container.duration / av.time_base) if container.duration else 0.0
    return seconds if 0 < seconds <= size else None


@contextmanager
def open_video(path: str, seconds: float) -> Iterator[tuple[Any, Any]]:
    """Open a file and find its main video stream; what FFmpeg raises meanwhile is the file's error."""
    av = load_package("pyav")
    try:
        # An absolute path, as "a:b.mp4" reads like a protocol; broken tags are no reason to refuse a video.
        with av.open(os.path.abspath(path), metadata_errors="replace", timeout=seconds) as container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:  # an audio cover
                raise VideoError(path, "holds no video stream")
            if container.format.name.endswith("_pipe") or container.format.name in _NOT_VIDEO:
                raise VideoError(path, f"is no video ({container.format.long_name})")
            yield container, stream
    except av.error.ExitError:
        raise VideoError(path, f"takes more than {seconds:.0f} s to open") from None
    except av.error.FFmpegError as error:
        raise VideoError(
            path, f"is not a video, or is cut off before its end (FFmpeg: {error_line(error)})"
        ) from None


def _index_of(
    path: str, packets: _Packets, container: str, stream: int, rate: float, time_base: float, untimed: bool
) -> FrameIndex:
    """Sort the frames of a stream by the time at which they are shown."""
    own, decoded, lengths = (np.array(column, np.int64) for column in (packets.pts, packets.dts, packets.lengths))
    if max(abs(int(bound)) for column in (own, decoded) for bound in (column.min(), column.max())) > _SANE:
        raise VideoError(path, "has timestamps that no clock can have had")
    lengths = np.clip(lengths, 0, _SANE)
    is_key = np.array(packets.is_key, np.bool_)
    usual = float(np.median(lengths)) or 1 / (rate * time_base)
    clock = read_clock(own, decoded, frame=usual, unit=time_base, timed=packets.timed)
    shown = clock.shown
    if clock.ordered:  # else frames are counted as they leave the decoder, damaged ones among them
        sound = np.array(packets.is_corrupt) == 0
        if not sound.any():
            raise VideoError(path, "is damaged in every frame")
        shown, decoded, lengths, is_key = shown[sound], decoded[sound], lengths[sound], is_key[sound]
    pts, first = np.unique(shown, return_index=True)
    keys = np.flatnonzero(is_key[first])
    length = lengths if lengths.any() else math.ceil(usual)
    times = (pts - pts[0]) * time_base
    gaps, duration, remark = find_gaps(times, float((shown + length).max() - pts[0]) * time_base)
    if not 0 < duration < math.inf:
        raise VideoError(path, "has timestamps that no clock can have had")
    return FrameIndex(
        container=container,
        stream=stream,
        pts=pts,
        keys=keys,
        key_dts=decoded[first][keys],
        display_order=clock.ordered and not (untimed and bool((np.diff(shown) > 0).all())),
        time_base=time_base,
        times=times,
        duration=duration,
        gaps=gaps,
        remark=clock.remark or remark,
    )


def require_size(path: str, width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse frames of more pixels than the limits allow, or so large that a decoder takes too much memory."""
    if width * height > limits.pixels:
        raise VideoError(path, f"has frames of {width} × {height} pixels, more than the {limits.pixels:,} allowed")
    if width * height * _KEPT > limits.memory:
        raise VideoError(
            path,
            f"has frames of {width} × {height} pixels, of which a decoder may keep "
            f"{width * height * _KEPT / 1e9:.2g} GB, more than the {limits.memory / 1e9:.2g} GB allowed",
        )


def _require_regular(path: str) -> int:
    """Return the size of a file; refuse what is no readable one, before a decoder opens it: a pipe would block."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise VideoError(path, f"is {kind}, not a file")
        if status.st_size == 0:
            raise VideoError(path, "is empty (0 bytes)")
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise VideoError(path, "is a zip archive, not a video; unpack it")
    except ValueError:
        raise VideoError(path, "has a null character in its name, which no file can have") from None
    except OSError as error:
        raise VideoError(path, error_line(error).lower()) from None
    return status.st_size


def _require_frames(path: str, frames: int, size: int, limits: DecodeLimits) -> None:
    """Refuse more frames than the limits allow, or than there are bytes."""
    if frames > size:
        raise VideoError(path, f"claims {frames:,} frames in {size:,} bytes")
    if frames > limits.frames:
        raise VideoError(path, f"lists {frames:,} frames, more than the {limits.frames:,} allowed")


def _is_whole_riff(path: str, size: int) -> bool:
    """Return whether an AVI has all the bytes that it should: one that ends in dropped frames is not truncated."""
    with open(path, "rb") as file:
        head = file.read(8)
    return head[:4] == b"RIFF" and 0 <= size - 8 - int.from_bytes(head[4:], "little") <= 1


def _is_whole_mp4(path: str, size: int) -> bool:
    """Return whether a file is a row of mp4's boxes that ends where the file does."""
    place = 0
    with open(path, "rb") as file:
        while place + 8 <= size:
            file.seek(place)
            length, kind, long = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            if not kind.isalnum():
                return False
            length = long if length == 1 else length or size - place
            if length < 8:
                return False
            place += length
    return place == size


def _require_whole_asf(path: str, size: int) -> None:
    """Refuse an ASF file (.wmv) of fewer bytes than its header says."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    properties = head.find(_ASF_PROPERTIES)
    claimed = int.from_bytes(head[properties + 40 : properties + 48], "little") if properties >= 0 else 0
    if size < 0.9 * claimed:
        raise VideoError(path, f"is truncated: {claimed:,} bytes long by its header, {size:,} are there")


def _read_packets(
    path: str, container: Any, size: int, limits: DecodeLimits
) -> tuple[dict[int, _Packets], float, float]:
    """Read all packets: the frames of each video stream, and from when to when any stream has data, in seconds."""
    tracks = {stream.index: _Packets() for stream in container.streams.video}
    starts: dict[int, int] = {}  # of each stream, in its own time base
    ends: dict[int, int] = {}
    deadline = time.monotonic() + limits.seconds_for(size)
    for count, packet in enumerate(_demux(path, container)):
        if not count % _CHECK_EVERY:
            _require_frames(path, max(map(len, tracks.values())), size, limits)
            if time.monotonic() > deadline:
                raise VideoError(path, f"takes more than {limits.seconds_for(size):.0f} s to read")
        pts, track = packet.pts, packet.stream_index
        frames = tracks.get(track)
        if pts is None:
            if frames is not None and packet.size:
                frames.untimed += 1
            continue
        duration = packet.duration or 0
        ends[track] = max(ends.get(track, 0), pts + duration)
        starts[track] = min(starts.get(track, pts), pts)
        # An edit list discards frames: they help to decode others and are never shown.
        if frames is None or packet.is_discard:
            continue
        if not frames:
            frames.encrypted = packet.has_sidedata("encryption_info")
        dts = packet.dts
        if dts is None:
            dts, frames.timed = pts, False
        frames.pts.append(pts)
        frames.dts.append(dts)
        frames.lengths.append(duration)
        frames.is_key.append(packet.is_keyframe)
        frames.is_corrupt.append(packet.is_corrupt)
    streams = container.streams
    reached = max((float(end * streams[track].time_base) for track, end in ends.items()), default=0.0)
    first = min((float(start * streams[track].time_base) for track, start in starts.items()), default=0.0)
    return tracks, first, reached


def _demux(path: str, container: Any) -> Iterator[Any]:
    """Read the packets of all streams; PyAV knows the streams that there are at the beginning, and no others."""
    try:
        yield from container.demux()
    except IndexError:
        raise VideoError(
            path,
            "gains a stream on its way, which cannot be followed here; copy what there is at its beginning: "
            f"ffmpeg -i {os.path.basename(path)} -map 0:v -c copy video.mp4",
        ) from None
