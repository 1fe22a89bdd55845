"""Reading of a file that may have crashed an earlier process, in a process of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from threading import Event

from dits_adapter.errors import VideoError
from dits_adapter.video._child import call_in_child
from dits_adapter.video._reader import Decoder
from dits_adapter.video.decode import Video
from dits_adapter.video.limits import DecodeLimits

__all__ = ["Reading", "read_apart"]

_PATIENCE = 4
"""How many times longer reading all segments may take than one step on the file."""


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        frames: frames a segment.
        seconds, overlap, limit: of the segments (`Video.spans`).
        decoder: the video decoder.
        limits: what the file may cost.
    """

    frames: int
    seconds: float | None
    overlap: float
    limit: float
    decoder: Decoder
    limits: DecodeLimits


def read_apart(path: str, reading: Reading, stopped: Event) -> None:
    """Decode the frames of all segments in a child process and drop them; `stopped`, when it is set, ends it.

    Raises:
        VideoError: the child process did not live to its end. Ordinary errors of the file are left to its reader.
    """
    try:
        size = os.path.getsize(path)
    except OSError:
        return
    try:
        seconds = _PATIENCE * reading.limits.seconds_for(size)
        call_in_child(seconds, _read_through, path, reading, memory=reading.limits.memory, stopped=stopped)
    except RuntimeError as error:
        raise VideoError(path, f"cannot be decoded: in a process of its own, a decoder {error}") from None


def _read_through(path: str, reading: Reading) -> None:
    """Decode the frames of all segments and drop them."""
    with suppress(VideoError), Video(path, reading.decoder, reading.limits) as video:
        for start, end in video.spans(reading.seconds, reading.overlap, reading.limit):
            video.frames(reading.frames, start, end, transform=lambda frame: frame[:1, :1])
