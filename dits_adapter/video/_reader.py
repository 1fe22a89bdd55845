"""Reader of a video file: frames by their number in the file's index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt

from dits_adapter.video._index import FrameIndex
from dits_adapter.video.limits import DecodeLimits

__all__ = ["Decoder", "Frame", "FrameReader"]

Decoder = Literal["auto", "pyav", "decord", "torchcodec"]
"""Package that decodes a video; `"auto"` is the first of them that can read the file."""

Frame = npt.NDArray[np.uint8]
"""Upright RGB picture, (h, w, 3)."""


class FrameReader(ABC):
    """Open video file, from which one decoder takes frames by their number in the file's index.

    A reader that cannot be trusted with the file raises at construction; `Video` then tries the next decoder.
    """

    @abstractmethod
    def __init__(self, path: str, index: FrameIndex, limits: DecodeLimits) -> None: ...

    @abstractmethod
    def frame(self, number: int) -> Frame:
        """Return the upright (h, w, 3) uint8 RGB frame of a number; fastest in ascending order."""

    def expect(self, numbers: npt.NDArray[np.intp]) -> None:  # noqa: B027 - most decoders cannot use it
        """Announce the ascending numbers of all frames that `frame` will be called for."""

    def close(self) -> None:  # noqa: B027 - most decoders close their file as soon as they are dropped
        """Close the file."""
