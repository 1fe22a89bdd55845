"""Decode chosen frames of a video file through PyAV, decord or torchcodec, by timestamp.

One pass over a file's packets, in which nothing is decoded, lists when each frame is shown and which frames
are keyframes. It answers what a decoder cannot be asked: how long the video really is, whether the file ends
before its header says it should, and which frame is on screen at a given time. The backends then only fetch
frames by their number in that list.

Times are in seconds from the first frame on. Frames come upright: the display matrix is applied. The pixel
aspect ratio is not. The backends agree to within 2 of 255 levels on 8-bit video; on deeper video they blend
colours differently at sharp edges (1 level on average).
"""

from __future__ import annotations

import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from os import PathLike, fspath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import DITSError, InputError, MissingExtraError, VideoError
from dits_adapter.video.frames import interval_middles

Backend = Literal["auto", "pyav", "decord", "torchcodec"]
Frame = npt.NDArray[np.uint8]

_NOT_VIDEO = frozenset({"adf", "bin", "concat", "dash", "hls", "ico", "idf", "image2", "sdp", "tty", "xbin"})
"""What FFmpeg reads as video and nobody means: pictures, text, and lists of other files."""

_EXACT_SEEK = frozenset({"avi", "flv", "gif", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers in which a seek ends at the keyframe asked for."""

_TICK = 1e-6
"""Seconds by which a frame may start late and still count as shown: timestamps are rounded in the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` found.

    Attributes:
        path: the file, as given.
        duration: seconds from the start of the first frame to the end of the last.
        fps: frames a second on average; they need not be evenly spaced.
        width: pixels of an upright frame.
        height: likewise.
        backend: the decoder that read its first frame.
    """

    path: str
    duration: float
    fps: float
    width: int
    height: int
    backend: str


@dataclass(frozen=True)
class DecodedFrames:
    """Frames of one video.

    Attributes:
        frames: (n, h, w, 3) uint8 RGB, upright; (n, ...) of another kind after a `transform`.
        timestamps: (n,) float64, when each frame appears on screen, in seconds. Equal neighbours are one frame
            that was on screen at both sampled times.
        backend: the decoder that was used.
    """

    frames: npt.NDArray[Any]
    timestamps: npt.NDArray[np.float64]
    backend: str


def probe(path: str | PathLike[str], backend: Backend = "auto") -> VideoInfo:
    """Describe a video: read its packets and decode its first frame.

    Raises:
        VideoError: no frame can be had from the file.
        InputError: no such backend.
        MissingExtraError: the backend asked for is not installed.
    """
    with Video(path, backend) as video:
        first = video.frames_at([0.0])
        height, width = first.frames.shape[1:3]
        return VideoInfo(video.path, video.duration, video.fps, width, height, first.backend)


def decode_frames(
    path: str | PathLike[str],
    n: int = 12,
    start: float = 0.0,
    end: float | None = None,
    backend: Backend = "auto",
) -> DecodedFrames:
    """Decode the frames on screen in the middles of n equal intervals of [start, end).

    Args:
        path: a video file.
        n: number of frames.
        start: seconds from the first frame.
        end: seconds from the first frame; None, or a time past the end, is the end of the video.
        backend: `"auto"` is the first of PyAV, decord and torchcodec that can read the file.

    Raises:
        VideoError: the file is missing, empty, truncated, damaged, not a video, or shorter than `start`.
        InputError: n < 1, or not 0 <= start < end, or no such backend.
        MissingExtraError: the backend asked for is not installed.
    """
    with Video(path, backend) as video:
        return video.frames(n, start, end)


class Video:
    """An open video file, to take frames from several spans of it; a context manager.

    When a backend fails on the file, the next one takes over for good. One `Video` belongs to one thread.

    Attributes:
        path: the file, as given.
        duration: seconds from the start of the first frame to the end of the last.
        fps: frames a second on average.
    """

    def __init__(self, path: str | PathLike[str], backend: Backend = "auto") -> None:
        self.path = fspath(path)
        self._backends = _usable(backend)
        self._index = _read_index(self.path)
        self._reader: _Reader | None = None
        self._failures: list[str] = []
        self.duration = self._index.duration
        self.fps = len(self._index.pts) / self._index.duration

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def another(self) -> Video:
        """Return a second handle on the file, for another thread; the packets are not read again."""
        twin = copy(self)
        twin._reader, twin._backends, twin._failures = None, list(self._backends), list(self._failures)
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
            transform: called on each (h, w, 3) uint8 frame as it is decoded: the full-sized frames need then
                never be in memory together.
        """
        if start >= self.duration:
            raise VideoError(self.path, f"lasts {self.duration:.2f} s, nothing to see from {start:.2f} s on")
        stop = self.duration if end is None else min(end, self.duration)
        return self.frames_at(interval_middles(start, stop, n), transform=transform)

    def frames_at(
        self, times: npt.ArrayLike, *, transform: Callable[[Frame], npt.NDArray[Any]] | None = None
    ) -> DecodedFrames:
        """Decode the frames on screen at the given times: (n,) ascending seconds from the first frame.

        Raises:
            VideoError: no backend can decode them.
        """
        numbers, copies = np.unique(self._index.shown_at(np.asarray(times, np.float64)), return_inverse=True)
        while self._backends:
            backend = self._backends[0]
            frames: list[npt.NDArray[Any]] = []
            decoded = self._decode(backend, numbers)
            while len(frames) < len(numbers):
                try:
                    frame = next(decoded)
                except VideoError:  # the file's fault, not the backend's
                    raise
                except Exception as error:  # each decoder has a zoo of its own
                    if not isinstance(error, DITSError):  # that is a backend which is not there
                        self._failures.append(f"{backend}: {_one_line(error)}")
                    self._backends.pop(0)
                    self._close()
                    break
                frames.append(frame if transform is None else transform(frame))
            else:
                if len({frame.shape for frame in frames}) > 1:
                    raise VideoError(self.path, "its frames change size on the way")
                return DecodedFrames(np.stack(frames)[copies], self._index.times[numbers][copies], backend)
        raise VideoError(self.path, f"cannot be decoded ({'; '.join(self._failures)})")

    def _decode(self, backend: str, numbers: npt.NDArray[np.intp]) -> Iterator[Frame]:
        """Decode the frames of ascending numbers by the reader that is open, or by a new one."""
        if self._reader is None:
            self._reader = _READERS[backend](self.path, self._index)
        self._reader.expect(numbers)
        yield from map(self._reader.frame, numbers.tolist())


def _one_line(error: BaseException) -> str:
    """Say what a decoder said, without its source locations and line breaks."""
    text = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return text[0].rsplit("Check failed:", 1)[-1].strip()[:200] if text else type(error).__name__


# --- The index: one pass over the packets -------------------------------------------------------------------


@dataclass(frozen=True)
class _Index:
    """What the packets of a file say about its video stream.

    Attributes:
        container: FFmpeg's name of its format.
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


def _check_regular(path: str) -> None:
    """Refuse what is no readable file before a decoder opens it: a pipe, for one, would block for ever."""
    try:
        mode = os.stat(path)
        if not stat.S_ISREG(mode.st_mode):
            kind = "a directory" if stat.S_ISDIR(mode.st_mode) else "a device or a pipe"
            raise VideoError(path, f"is {kind}, not a file")
        if mode.st_size == 0:
            raise VideoError(path, "is empty (0 bytes)")
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        raise VideoError(path, _one_line(error).lower()) from None


def _read_index(path: str) -> _Index:
    """List the frames of a file's main video stream without decoding any.

    Raises:
        VideoError: not a readable video, or it ends before its header says it should.
    """
    av = _load("pyav")
    _check_regular(path)
    rows: list[tuple[int, int, int, bool]] = []  # pts, dts, duration, keyframe
    ends: dict[int, int] = {}  # of each stream, in its own time base
    try:
        # An absolute path, as "a:b.mp4" reads like a protocol; broken tags are no reason to refuse a video.
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            kind = container.format.name
            stream = container.streams.best("video")
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:  # an audio cover
                raise VideoError(path, "holds no video stream")
            if kind.endswith("_pipe") or kind in _NOT_VIDEO:
                raise VideoError(path, f"is no video ({container.format.long_name})")
            for packet in container.demux():
                if packet.pts is None:
                    continue
                track, length = packet.stream.index, packet.duration or 0
                ends[track] = max(ends.get(track, 0), packet.pts + length)
                # An edit list discards frames: they help to decode others and are never shown.
                if track == stream.index and not packet.is_discard and not packet.is_corrupt:
                    dts = packet.pts if packet.dts is None else packet.dts
                    rows.append((packet.pts, dts, length, packet.is_keyframe))
            if not rows:
                raise VideoError(path, "has a video stream without frames")
            reached = max(float(end * container.streams[track].time_base) for track, end in ends.items())
            promised = (container.duration or 0) / av.time_base
            rate = float(stream.guessed_rate or 25)
            if kind == "avi":  # its duration is scaled down to the size of the file, its frame count is not
                promised = max(promised, stream.frames / rate)
            time_base = float(stream.time_base)
            untimed = kind == "avi" and stream.codec_context.has_b_frames
    except av.error.FFmpegError as error:
        raise VideoError(
            path, f"is not a video, or is cut off before its end (FFmpeg: {_one_line(error)})"
        ) from None
    if promised - reached > max(0.5, 0.1 * promised):
        raise VideoError(path, f"is truncated: {promised:.2f} s long by its header, data for {reached:.2f} s")
    shown, decoded, lengths, is_key = (np.array(column) for column in zip(*rows, strict=True))
    pts, first = np.unique(shown, return_index=True)
    keys = np.flatnonzero(is_key[first])
    length = lengths if lengths.any() else math.ceil(1 / (rate * time_base))
    duration = float((shown + length).max() - pts[0]) * time_base
    display_order = not (untimed and bool((np.diff(shown) > 0).all()))
    return _Index(
        kind, pts, keys, decoded[first][keys], display_order, time_base, (pts - pts[0]) * time_base, duration
    )


# --- The backends: fetch frames by number -------------------------------------------------------------------


class _Reader(ABC):
    """A decoder at work on one file."""

    @abstractmethod
    def __init__(self, path: str, index: _Index) -> None: ...

    @abstractmethod
    def frame(self, number: int) -> Frame:
        """Return the upright (h, w, 3) uint8 RGB frame of a number; fastest in ascending order."""

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:  # noqa: B027 - most decoders cannot use it
        """Learn the ascending numbers of all frames that `frame` will be asked for."""

    def close(self) -> None:  # noqa: B027 - most decoders close their file as soon as they are dropped
        """Let go of the file."""


class _PyAVReader(_Reader):
    """PyAV, going by timestamps: it seeks only where that skips at least a keyframe's worth of decoding.

    Frames that no other frame refers to (B-frames, often half of a file) are decoded only if they are expected.
    """

    def __init__(self, path: str, index: _Index) -> None:
        self._path = path
        self._index = index
        # MPEG program streams give most frames no time of their own: it is another one after a seek.
        self._seekable = index.display_order and index.container != "mpeg"
        self._container: Any = None
        self._expected: frozenset[int] | None = None  # their timestamps; None decodes every frame
        self._converter = _load("pyav").video.reformatter.VideoReformatter()
        self._restart()

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:
        # Without timestamps to go by, frames are counted, and none may be left out.
        self._expected = frozenset(self._index.pts[numbers].tolist()) if self._index.display_order else None

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _restart(self) -> None:
        self.close()
        self._container = _load("pyav").open(os.path.abspath(self._path), metadata_errors="replace")
        self._stream = self._container.streams.best("video")
        self._stream.codec_context.thread_count = 1  # videos are decoded side by side, not each in parallel
        self._frames = self._decoded()
        self._at = -1  # number of the last frame decoded

    def frame(self, number: int) -> Frame:
        frame = self._decode(number)
        if frame is None or frame.is_corrupt:
            raise VideoError(self._path, f"is damaged at {self._index.times[number]:.2f} s")
        # Bicubic, like the conversion inside the other backends: it spreads the colours of odd-sized frames.
        pixels = self._converter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
        return _upright(pixels, frame.side_data.get("DISPLAYMATRIX"))

    def _decode(self, number: int) -> Any:
        """Return an `av.VideoFrame`, going on from the last one or from a nearer keyframe; None if it is lost."""
        index = self._index
        k = int(np.searchsorted(index.keys, number, side="right")) - 1
        key = int(index.keys[k]) if k >= 0 and self._seekable else 0
        if key - 1 <= self._at < number:
            frame = self._advance(number)
            if frame is not None:
                return frame
        if key > 0:
            # Some containers seek by presentation time, others by decoding time; the wrong one lands too late.
            for timestamp in (index.pts[key], index.key_dts[k]):
                self._container.seek(int(timestamp), stream=self._stream)
                self._frames = self._decoded()
                frame = self._advance(number)
                if frame is not None:
                    return frame
            self._seekable = False
        self._expected = None  # the last resort trusts nothing
        self._restart()
        return self._advance(number)

    def _decoded(self) -> Iterator[Any]:
        """Decode from here on; the packet in which a file breaks off may fail, those before it still count."""
        context = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            wanted = self._expected is None or packet.pts in self._expected
            context.skip_frame = "DEFAULT" if wanted else "NONREF"
            try:
                yield from packet.decode()
            except ValueError:  # FFmpeg's "invalid data"
                if not packet.is_corrupt:
                    raise

    def _advance(self, number: int) -> Any:
        """Decode up to a frame; None if it does not come."""
        pts = self._index.pts
        for frame in self._frames:
            if not self._index.display_order:
                self._at += 1
                if self._at == number:
                    return frame
            elif frame.pts is not None:
                self._at = int(np.searchsorted(pts, frame.pts))
                if frame.pts >= pts[number]:
                    return frame if frame.pts == pts[number] else None
        self._at = len(pts)
        return None


def _upright(pixels: Frame, matrix: Any) -> Frame:
    """Apply the display matrix of a frame, if it has one: quarter turns and mirrors."""
    if matrix is None:
        return pixels
    # ((a, b), (c, d)): a pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


class _DecordReader(_Reader):
    """Decord, where it can be trusted; it turns frames upright itself, but mirrors none.

    It finds a frame by counting from a keyframe, whose number it takes in decoding order for its number in
    display order, and it believes every seek. So it returns other frames than asked where the two orders
    differ (open groups of pictures, x265's default) or a seek lands elsewhere (transport streams).
    """

    def __init__(self, path: str, index: _Index) -> None:
        decord = _load("decord")
        if index.container not in _EXACT_SEEK or not index.display_order:
            raise RuntimeError("it does not find the right frames in this kind of container")
        decord.logging.set_level(decord.logging.QUIET)
        # The smallest tolerance there is: it would else hand out a neighbour for a frame it cannot decode.
        self._video = decord.VideoReader(os.path.abspath(path), num_threads=1, fault_tol=1e-6)
        if len(self._video) != len(index.pts) or self._video.get_key_indices() != index.keys.tolist():
            raise RuntimeError("it does not find the right frames among these keyframes")

    def frame(self, number: int) -> Frame:
        frame = self._video[number].asnumpy()
        # At some small widths it takes the padding of a row for further channels (dmlc/decord issue 336).
        height, width = frame.shape[:2]
        return np.ascontiguousarray(frame.reshape(height, -1)[:, : 3 * width]).reshape(height, width, 3)


class _TorchCodecReader(_Reader):
    """torchcodec in its exact mode; the timestamp it returns with each frame is checked."""

    def __init__(self, path: str, index: _Index) -> None:
        if not index.display_order or index.container == "mpeg":
            raise RuntimeError("frames of this container cannot be told by their timestamps")
        self._index = index
        self._video = _load("torchcodec").VideoDecoder(
            os.path.abspath(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
        )

    def frame(self, number: int) -> Frame:
        frame = self._video.get_frame_at(number)
        expected = self._index.pts[number] * self._index.time_base
        if abs(frame.pts_seconds - expected) > self._index.time_base / 2:
            raise RuntimeError(f"returned the frame of {frame.pts_seconds:.3f} s for that of {expected:.3f} s")
        pixels: Frame = frame.data.numpy()
        return pixels


_READERS: dict[str, type[_Reader]] = {
    "pyav": _PyAVReader,
    "decord": _DecordReader,
    "torchcodec": _TorchCodecReader,
}
_MODULES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}


def _load(backend: str) -> Any:
    """Import a backend's package.

    Raises:
        MissingExtraError: it is not installed.
        DITSError: it is, and does not load.
    """
    try:
        return import_module(_MODULES[backend])
    except ImportError:
        package = {"pyav": "av", "decord": "decord2"}.get(backend, backend)
        extra = "torchcodec" if backend == "torchcodec" else None
        raise MissingExtraError(package, extra, f"decoding video with {backend}") from None
    except (OSError, RuntimeError) as error:  # torchcodec without FFmpeg's libraries or with another torch
        raise DITSError(
            f"{backend} is installed but does not load ({_one_line(error)}); choose another backend."
        ) from error


def _usable(backend: str) -> list[str]:
    """Return the backends to try, in order."""
    if backend == "auto":
        return list(_READERS)  # imported only when their turn comes
    if backend not in _READERS:
        raise InputError(f"no video backend {backend!r}; choose from auto, {', '.join(_READERS)}.")
    _load(backend)
    return [backend]
