"""Limits of what one video file may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from dits_adapter.errors import InputError

__all__ = ["DecodeLimits"]

_LONGEST = 1e9
"""Bound of the seconds that one step may take: thirty years, which any clock can count."""


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits of what one video file may cost; a file beyond them is a `VideoError`, as a damaged one is.

    A film of ten hours in 4K passes the defaults. Time is looked at between packets, and the memory of decoding
    in this process is reckoned from the size of a frame: neither ends a call into a library that hangs.

    Attributes:
        pixels: width × height of a frame.
        frames: frames that the file may list.
        seconds: time in which a file's packets are listed, and in which one call's frames are decoded, beyond the
            time in which a disk reads the whole file at 10 MB/s.
        memory: bytes of the RGB frames that one call may return, of the frames that a decoder may keep, and of a
            child process that decodes.

    Raises:
        InputError: a limit that is not positive.
    """

    pixels: int = 8192 * 8192
    frames: int = 10_000_000
    seconds: float = 300.0
    memory: float = 4e9

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < math.inf:
                raise InputError(f"{field.name} is {getattr(self, field.name)}; expected a finite limit above 0.")

    def seconds_for(self, size: int) -> float:
        """Return the seconds that one step on a file of `size` bytes may take."""
        return min(self.seconds + size / 1e7, _LONGEST)
