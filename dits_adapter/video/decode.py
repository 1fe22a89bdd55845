"""Chosen frames of a video file, decoded through PyAV, decord or torchcodec by timestamp.

One pass over a file's packets, in which nothing is decoded, lists when each frame is shown and which frames
are keyframes. This index answers what decoders cannot: how long the video really is, whether the file ends
before its header says it should, and which frame is on screen at a given time. The decoders then only fetch
frames by their number in the index.

Times are in seconds from the first frame on. Frames come upright: the display matrix is applied. The pixel
aspect ratio is not. The decoders agree to within 2 of 255 levels on 8-bit video; on deeper video they blend
colors differently at sharp edges (1 level on average).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
import numpy.typing as npt

from dits_adapter._reprs import short_repr, shown_repr
from dits_adapter.errors import DITSError, VideoError
from dits_adapter.video._frames import interval_middles, segment_spans
from dits_adapter.video._index import read_duration, read_frame_index
from dits_adapter.video._packages import error_line
from dits_adapter.video._reader import Decoder, Frame, FrameReader
from dits_adapter.video._readers import READERS, usable_decoders
from dits_adapter.video.limits import DecodeLimits

__all__ = [
    "DecodedFrames",
    "Decoder",
    "Frame",
    "Video",
    "VideoInfo",
    "decode_frames",
    "naming_file",
    "probe",
    "stated_duration",
]


_DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True)
class VideoInfo:
    """Description of a video file.

    Attributes:
        path: the file, as given.
        duration: seconds from the start of the first frame to the end of the last.
        fps: frames a second on average; they need not be evenly spaced.
        width, height: pixels of an upright frame.
        decoder: the decoder that read its first frame.
        remark: what is wrong with the file's own times and was made up for: a clock that starts again, frames
            that share their times, gaps; empty where nothing is.
    """

    path: str
    duration: float
    fps: float
    width: int
    height: int
    decoder: str
    remark: str = ""


@dataclass(frozen=True)
class DecodedFrames:
    """Frames of one video.

    Attributes:
        frames: (n, h, w, 3) uint8 RGB, upright; (n, ...) of another kind after a `transform`.
        timestamps: (n,) float64, when each frame appears on screen, in seconds. Equal neighbors are one frame
            that was on screen at both sampled times.
        decoder: the decoder that was used.
    """

    frames: npt.NDArray[Any]
    timestamps: npt.NDArray[np.float64]
    decoder: str

    __repr__ = shown_repr


def probe(
    path: str | PathLike[str], decoder: Decoder = "auto", limits: DecodeLimits = _DEFAULT_LIMITS
) -> VideoInfo:
    """Describe a video: read its packets and decode its first frame.

    Raises:
        VideoError: no frame can be had from the file.
        InputError: no such decoder.
        MissingExtraError: the decoder asked for is not installed.
    """
    with Video(path, decoder, limits) as video:
        first = video.frames_at([0.0])
        height, width = first.frames.shape[1:3]
        return VideoInfo(video.path, video.duration, video.fps, width, height, first.decoder, video.remark)


def stated_duration(path: str | PathLike[str], limits: DecodeLimits = _DEFAULT_LIMITS) -> float | None:
    """Return the seconds that a video lasts by its header, None where that says nothing; no frame is read.

    Raises:
        VideoError: the file is not a video, as far as its header tells.
    """
    with naming_file(fspath(path)):
        return read_duration(fspath(path), limits)


def decode_frames(
    path: str | PathLike[str],
    n: int = 12,
    start: float = 0.0,
    end: float | None = None,
    decoder: Decoder = "auto",
    limits: DecodeLimits = _DEFAULT_LIMITS,
) -> DecodedFrames:
    """Decode the frames on screen in the middles of n equal intervals of [start, end).

    Args:
        path: a video file.
        n: number of frames.
        start: seconds from the first frame.
        end: seconds from the first frame; None, or a time past the end, is the end of the video.
        decoder: `"auto"` is the first of PyAV, decord and torchcodec that can read the file.
        limits: what the file may cost.

    Raises:
        VideoError: the file is missing, empty, truncated, damaged, not a video, beyond the
            limits, or shorter than `start`.
        InputError: n < 1, or not 0 <= start < end, or no such decoder.
        MissingExtraError: the decoder asked for is not installed.
    """
    with Video(path, decoder, limits) as video:
        return video.frames(n, start, end)


class Video:
    """Open video file, from which frames of several spans are taken; a context manager.

    When a decoder fails on the file, the next one takes over for good. One `Video` belongs to one thread.

    Attributes:
        path: the file, as given.
        duration: seconds from the start of the first frame to the end of the last.
        origin: time of the first frame by the clock of the file, in seconds, which sound and subtitles go by.
        fps: frames a second on average.
        remark: what is wrong with the file's own times and was made up for (see `VideoInfo`).
    """

    def __init__(
        self, path: str | PathLike[str], decoder: Decoder = "auto", limits: DecodeLimits = _DEFAULT_LIMITS
    ) -> None:
        self.path = fspath(path)
        self.limits = limits
        self._decoders = usable_decoders(decoder)
        with naming_file(self.path):
            self._index = read_frame_index(self.path, limits)
        self._reader: FrameReader | None = None
        self._failures: list[str] = []
        self.duration = self._index.duration
        self.origin = float(self._index.pts[0]) * self._index.time_base
        self.remark = self._index.remark
        self.fps = len(self._index.pts) / self._index.duration

    def __repr__(self) -> str:
        return short_repr(self, self.path, duration=round(self.duration, 3), fps=round(self.fps, 3))

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._reader is not None:
            with suppress(Exception):  # one that failed may fail at this as well
                self._reader.close()
            self._reader = None

    def another(self) -> Video:
        """Return a second handle on the file, for another thread; the packets are not read again."""
        twin = copy(self)
        twin._reader, twin._decoders, twin._failures = None, list(self._decoders), list(self._failures)
        return twin

    def frames(
        self,
        n: int = 12,
        start: float = 0.0,
        end: float | None = None,
        *,
        transform: Callable[[Frame], npt.NDArray[Any]] | None = None,
    ) -> DecodedFrames:
        """Decode the frames on screen in the middles of n equal intervals of [start, end): see `decode_frames`.

        Args:
            n: number of frames.
            start: seconds from the first frame.
            end: likewise; None, or a time past the end, is the end of the video.
            transform: called on each (h, w, 3) uint8 frame as it is decoded, so that the full-sized frames need
                not be in memory together.

        Raises:
            VideoError: the video is shorter than `start`, or no decoder can decode it.
            InputError: n < 1, or not 0 <= start < end.
        """
        if start >= self.duration:
            raise VideoError(self.path, f"lasts {self.duration:.2f} s, nothing to see from {start:.2f} s on")
        stop = self.duration if end is None else min(end, self.duration)
        gaps = self._index.gaps
        recorded = gaps.elapsed(start), gaps.elapsed(stop)
        if len(gaps.starts) and recorded[0] < recorded[1]:
            return self.frames_at(gaps.moments(interval_middles(*recorded, n)), transform=transform)
        return self.frames_at(interval_middles(start, stop, n), transform=transform)

    def spans(
        self, seconds: float | None = None, overlap: float = 0.0, limit: float = math.inf
    ) -> Iterator[tuple[float, float]]:
        """Yield the segments of the first `limit` seconds, without those in which no frame begins.

        Args:
            seconds: length of a segment; None for one segment that is the whole video.
            overlap: seconds that neighboring segments share, less than `seconds`.
            limit: seconds from the start after which the rest does not count.

        Yields:
            (start, end) of each segment, in seconds.

        Raises:
            InputError: a length that is not positive, or an overlap outside [0, seconds).
        """
        times = self._index.times
        return segment_spans(min(self.duration, limit), seconds, overlap, starts=times)

    def frames_at(
        self, times: npt.ArrayLike, *, transform: Callable[[Frame], npt.NDArray[Any]] | None = None
    ) -> DecodedFrames:
        """Decode the frames on screen at the given times.

        Args:
            times: (n,) ascending seconds from the first frame.
            transform: as for `frames`.

        Raises:
            VideoError: no decoder can decode them.
        """
        numbers, copies = np.unique(self._index.shown_at(np.asarray(times, np.float64)), return_inverse=True)
        while self._decoders:
            decoder = self._decoders[0]
            frames: list[npt.NDArray[Any]] = []
            decoded = self._decode(decoder, numbers)
            while len(frames) < len(numbers):
                try:
                    frame = next(decoded)
                except VideoError:  # the file's fault, not the decoder's
                    raise
                except Exception as error:  # each decoder raises errors of its own kinds
                    if not isinstance(error, DITSError):  # which says that the decoder is not installed
                        self._failures.append(f"{decoder}: {error_line(error)}")
                    self._decoders.pop(0)
                    self._close()
                    break
                if not frames and transform is None and frame.nbytes * len(numbers) > self.limits.memory:
                    size = frame.nbytes * len(numbers) / 1e9
                    raise VideoError(
                        self.path, f"its {len(numbers)} frames take {size:.1f} GB, more than the limit allows"
                    )
                frames.append(frame if transform is None else transform(frame))
            else:
                if len({frame.shape for frame in frames}) > 1:
                    raise VideoError(self.path, "its frames change size on the way")
                return DecodedFrames(np.stack(frames)[copies], self._index.times[numbers][copies], decoder)
        raise VideoError(
            self.path,
            f"cannot be decoded: it is damaged, or in a form unknown here ({'; '.join(self._failures)})",
        )

    def _decode(self, decoder: str, numbers: npt.NDArray[np.intp]) -> Iterator[Frame]:
        """Decode the frames of ascending numbers through the reader that is open, or a new one."""
        if self._reader is None:
            self._reader = READERS[decoder](self.path, self._index, self.limits)
        self._reader.expect(numbers)
        yield from map(self._reader.frame, numbers.tolist())


@contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Turn any exception into one error of the file: what a damaged file makes a library raise has no end."""
    try:
        yield
    except DITSError:
        raise
    except Exception as error:
        raise VideoError(
            path, f"cannot be read: it is damaged, or in a form unknown here (FFmpeg {error_line(error)})"
        ) from error
