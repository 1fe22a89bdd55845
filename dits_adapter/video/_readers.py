"""Readers of video files by decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dits_adapter.errors import InputError
from dits_adapter.video._child import ChildReader
from dits_adapter.video._index import FrameIndex
from dits_adapter.video._native import DecordReader, TorchCodecReader
from dits_adapter.video._packages import load_package
from dits_adapter.video._pyav import PyAVReader
from dits_adapter.video._reader import FrameReader
from dits_adapter.video.limits import DecodeLimits

__all__ = ["READERS", "usable_decoders"]

READERS: dict[str, Callable[[str, FrameIndex, DecodeLimits], FrameReader]] = {
    "pyav": PyAVReader,
    "decord": partial(ChildReader, "decord", DecordReader),
    "torchcodec": partial(ChildReader, "torchcodec", TorchCodecReader),
}
"""Readers by decoder, in the order in which `"auto"` tries them.

PyAV decodes in this process, at no cost. The others take over where it fails, on files that are damaged, and a
damaged file can make them abort: each runs in a child process.
"""


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
