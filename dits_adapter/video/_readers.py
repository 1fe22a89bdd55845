"""Readers of video files through PyAV, decord and torchcodec: frames by their number in the index."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import InputError, VideoError
from dits_adapter.video._index import FrameIndex
from dits_adapter.video._packages import load_package

__all__ = ["READERS", "Decoder", "Frame", "FrameReader", "usable_decoders"]

Decoder = Literal["auto", "pyav", "decord", "torchcodec"]
"""Package that decodes a video; `"auto"` is the first of them that can read the file."""

Frame = npt.NDArray[np.uint8]
"""Upright RGB picture, (h, w, 3)."""

_EXACT_SEEK = frozenset({"avi", "flv", "gif", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers in which a seek ends at the keyframe asked for."""


class FrameReader(ABC):
    """Open video file, from which one decoder takes frames by their number in the file's index.

    A reader that cannot be trusted with the file raises at construction; `Video` then tries the next decoder.
    """

    @abstractmethod
    def __init__(self, path: str, index: FrameIndex) -> None: ...

    @abstractmethod
    def frame(self, number: int) -> Frame:
        """Return the upright (h, w, 3) uint8 RGB frame of a number; fastest in ascending order."""

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:  # noqa: B027 - most decoders cannot use it
        """Announce the ascending numbers of all frames that `frame` will be called for."""

    def close(self) -> None:  # noqa: B027 - most decoders close their file as soon as they are dropped
        """Close the file."""


class _PyAVReader(FrameReader):
    """Reader through PyAV by timestamps: it seeks only where that skips at least a keyframe's worth of decoding.

    Frames that no other frame refers to (B-frames, often half of a file) are decoded only if they are expected.
    """

    def __init__(self, path: str, index: FrameIndex) -> None:
        self._path = path
        self._index = index
        # MPEG program streams give most frames no time of their own: it is another one after a seek.
        self._seekable = index.display_order and index.container != "mpeg"
        self._container: Any = None
        self._expected: frozenset[int] | None = None  # their timestamps; None decodes every frame
        self._converter = load_package("pyav").video.reformatter.VideoReformatter()
        self._restart()

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:
        # Without timestamps to go by, frames are counted, and none may be left out.
        self._expected = frozenset(self._index.pts[numbers].tolist()) if self._index.display_order else None

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _restart(self) -> None:
        self.close()
        self._container = load_package("pyav").open(os.path.abspath(self._path), metadata_errors="replace")
        self._stream = self._container.streams.best("video")
        self._stream.codec_context.thread_count = 1  # videos are decoded side by side, not each in parallel
        self._frames = self._decoded()
        self._at = -1  # number of the last frame decoded

    def frame(self, number: int) -> Frame:
        frame = self._decode(number)
        if frame is None or frame.is_corrupt:
            raise VideoError(self._path, f"is damaged at {self._index.times[number]:.2f} s")
        # Bicubic, like the conversion inside the other decoders: it spreads the colors of odd-sized frames.
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


class _DecordReader(FrameReader):
    """Reader through decord, where decord can be trusted; it turns frames upright itself, but mirrors none.

    Decord finds a frame by counting from a keyframe, whose number it takes in decoding order for its number in
    display order, and it believes every seek. So it returns other frames than asked where the two orders
    differ (open groups of pictures, x265's default) or a seek lands elsewhere (transport streams).
    """

    def __init__(self, path: str, index: FrameIndex) -> None:
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


class _TorchCodecReader(FrameReader):
    """Reader through torchcodec in its exact mode; the timestamp that comes with each frame is checked."""

    def __init__(self, path: str, index: FrameIndex) -> None:
        if not index.display_order or index.container == "mpeg":
            raise RuntimeError("frames of this container cannot be told by their timestamps")
        self._index = index
        self._video = load_package("torchcodec").VideoDecoder(
            os.path.abspath(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
        )

    def frame(self, number: int) -> Frame:
        frame = self._video.get_frame_at(number)
        expected = self._index.pts[number] * self._index.time_base
        if abs(frame.pts_seconds - expected) > self._index.time_base / 2:
            raise RuntimeError(f"returned the frame of {frame.pts_seconds:.3f} s for that of {expected:.3f} s")
        pixels: Frame = frame.data.numpy()
        return pixels


READERS: dict[str, type[FrameReader]] = {
    "pyav": _PyAVReader,
    "decord": _DecordReader,
    "torchcodec": _TorchCodecReader,
}
"""Readers by decoder, in the order in which `"auto"` tries them."""


def usable_decoders(decoder: str) -> list[str]:
    """Return the decoders to try, in order.

    Raises:
        InputError: no such decoder.
        MissingExtraError: the package of a decoder that was named is not installed.
    """
    if decoder == "auto":
        return list(READERS)  # imported only when their turn comes
    if decoder not in READERS:
        raise InputError(f"no video decoder {decoder!r}; choose from auto, {', '.join(READERS)}.")
    load_package(decoder)
    return [decoder]
