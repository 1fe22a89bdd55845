"""Reader of video files through PyAV."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import VideoError
from dits_adapter.video._index import FrameIndex, require_size
from dits_adapter.video._packages import load_package
from dits_adapter.video._reader import Frame, FrameReader
from dits_adapter.video.limits import DecodeLimits

__all__ = ["PyAVReader"]

_ROUNDING = 64 << 16
"""Pixels by which FFmpeg rounds up a frame before it compares with its own limit."""


class PyAVReader(FrameReader):
    """Reader through PyAV by timestamps: it seeks only where that skips at least a keyframe's worth of decoding.

    Frames that no other frame refers to (B-frames, often half of a file) are decoded only if they are expected.
    """

    def __init__(self, path: str, index: FrameIndex, limits: DecodeLimits) -> None:
        self._path = path
        self._index = index
        self._limits = limits
        self._seconds = limits.seconds_for(os.path.getsize(path))
        self._deadline = math.inf
        # MPEG program streams give most frames no time of their own: it is another one after a seek.
        self._seekable = index.display_order and index.container != "mpeg"
        self._container: Any = None
        self._expected: frozenset[int] | None = None  # their timestamps; None decodes every frame
        self._converter = load_package("pyav").video.reformatter.VideoReformatter()
        self._restart()

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:
        self._deadline = time.monotonic() + self._seconds
        # Without timestamps to go by, frames are counted, and none may be left out.
        self._expected = frozenset(self._index.pts[numbers].tolist()) if self._index.display_order else None

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _restart(self) -> None:
        self.close()
        self._container = load_package("pyav").open(
            os.path.abspath(self._path), metadata_errors="replace", timeout=self._seconds
        )
        self._stream = self._container.streams[self._index.stream]
        self._stream.codec_context.options = {"max_pixels": str(self._limits.pixels + _ROUNDING)}
        self._stream.codec_context.thread_count = 1  # videos are decoded side by side, not each in parallel
        self._frames = self._decoded()
        self._at = -1  # number of the last frame decoded

    def frame(self, number: int) -> Frame:
        frame = self._decode(number)
        if frame is None or frame.is_corrupt:
            raise VideoError(self._path, f"is damaged at {self._index.times[number]:.2f} s")
        require_size(self._path, frame.width, frame.height, self._limits)
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
            if time.monotonic() > self._deadline:
                raise VideoError(self._path, f"takes more than {self._seconds:.0f} s to decode")
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
