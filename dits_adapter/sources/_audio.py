"""Sound of a video file in windows of seconds: mono, at one rate, cut where it is quietest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import VideoError
from dits_adapter.video._packages import error_line, load_package

__all__ = ["NO_SOUND", "AudioWindow", "is_silent", "read_windows"]

NO_SOUND = "has no sound"
"""Reason of the error of a file without a sound track."""

_JUMP = 0.5
"""Seconds by which the clock of the sound may be off before a new window begins."""

_HOP = 0.05
"""Seconds of the frames by whose loudness a pause is found."""

_SILENCE = 1e-3
"""Loudness (root mean square of a hop, full scale 1) below which nobody speaks: -60 dB."""


class AudioWindow(NamedTuple):
    """Stretch of sound.

    Attributes:
        start: seconds from the first frame of the video; below 0 where the sound begins earlier.
        samples: (n,) float32 of -1 to 1.
    """

    start: float
    samples: npt.NDArray[np.float32]


def read_windows(path: str, rate: int, seconds: float, *, origin: float = 0.0) -> Iterator[AudioWindow]:
    """Decode the first sound track of a file, window by window; no more than one is in memory.

    A window ends in the quietest moment of its last third, so that no word is cut in two, or where the clock of
    the sound jumps. Damaged packets are left out.

    Args:
        path: the file.
        rate: samples a second.
        seconds: longest window.
        origin: time of the first frame of the video, by the clock of the file.

    Raises:
        VideoError: no sound in the file, or none that can be decoded.
    """
    av = load_package("pyav")
    try:
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise VideoError(path, NO_SOUND)
            cutter, damage, decoded = _Cutter(rate, round(seconds * rate)), "", False
            for start, samples in _Samples(av, container, stream, rate):
                if isinstance(samples, str):
                    damage = damage or samples
                    continue
                decoded = True
                yield from (AudioWindow(time - origin, window) for time, window in cutter.add(start, samples))
            yield from (AudioWindow(time - origin, window) for time, window in cutter.flush())
            if damage and not decoded:
                raise VideoError(path, f"has sound that cannot be decoded (FFmpeg: {damage})")
    except av.error.FFmpegError as error:
        raise VideoError(path, f"cannot be read to the end of its sound (FFmpeg: {error_line(error)})") from None


def is_silent(window: AudioWindow, rate: int) -> bool:
    """Tell whether nothing can be heard in a window."""
    return bool(_loudness(window.samples, rate).max(initial=0.0) < _SILENCE)


def _loudness(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """Return the root mean square of each hop, (hops,), the last one of what remains."""
    hop = max(1, round(_HOP * rate))
    starts = np.arange(0, len(samples), hop)
    sums = np.add.reduceat(np.square(samples, dtype=np.float64), starts) if len(starts) else np.empty(0)
    return np.asarray(np.sqrt(sums / np.diff(starts, append=len(samples))))


class _Samples:
    """Resampled sound of a stream, each part with its time in seconds, or the words of an error in its place."""

    def __init__(self, av: Any, container: Any, stream: Any, rate: int) -> None:
        self._av, self._container, self._stream, self._rate = av, container, stream, rate
        self._resampler = self._new_resampler()

    def _new_resampler(self) -> Any:
        return self._av.AudioResampler(format="flt", layout="mono", rate=self._rate)

    def __iter__(self) -> Iterator[tuple[float | None, npt.NDArray[np.float32] | str]]:
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                yield None, error_line(error)
                continue
            for frame in frames:
                yield from ((frame.time, part) for part in self._resample(frame))
        yield from ((None, part) for part in self._resample(None))

    def _resample(self, frame: Any) -> list[npt.NDArray[np.float32]]:
        try:
            parts = self._resampler.resample(frame)
        except ValueError:  # the sound changes its rate or channels on the way
            self._resampler = self._new_resampler()
            parts = self._resampler.resample(frame)
        return [np.nan_to_num(part.to_ndarray().reshape(-1)) for part in parts if part is not None]


class _Cutter:
    """Buffer that cuts sound into windows."""

    def __init__(self, rate: int, longest: int) -> None:
        self._rate, self._longest = rate, longest
        self._parts: list[npt.NDArray[np.float32]] = []
        self._size, self._start = 0, 0.0

    def add(
        self, start: float | None, samples: npt.NDArray[np.float32]
    ) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
        expected = self._start + self._size / self._rate
        if start is not None and (not self._size or abs(start - expected) > _JUMP):
            yield from self.flush()
            self._start = start
        self._parts.append(samples)
        self._size += len(samples)
        while self._size >= self._longest:
            whole = np.concatenate(self._parts)
            cut = self._quietest(whole[: self._longest])
            yield self._start, whole[:cut]
            self._parts, self._size = [whole[cut:]], len(whole) - cut
            self._start += cut / self._rate

    def flush(self) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
        if self._size:
            yield self._start, np.concatenate(self._parts)
            self._start += self._size / self._rate
            self._parts, self._size = [], 0

    def _quietest(self, samples: npt.NDArray[np.float32]) -> int:
        """Return the middle of the quietest hop of the last third; of several, the last one."""
        first = 2 * len(samples) // 3
        loudness = _loudness(samples[first:], self._rate)
        hop = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
        return min(len(samples), first + round((hop + 0.5) * _HOP * self._rate))
