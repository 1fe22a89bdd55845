"""Files of vectors: the protocol of their readers, and the blocks that these give out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Rows that are read at a time."""


class TextBlock(NamedTuple):
    """Texts in a row: vectors (b, d), numbers of their videos (b,)."""

    vectors: NDArray[Any]
    videos: NDArray[np.int64]


class VideoBlock(NamedTuple):
    """Videos in a row: names (b,) of dtype object, pooled vectors (b, d), frame vectors (b, k, d); k may be 0."""

    ids: NDArray[np.object_]
    vectors: NDArray[Any]
    frames: NDArray[Any]


class Source(Protocol):
    """Files of vectors.

    Attributes:
        files: all of them.
        texts, videos: how many there are.
        frames: frame vectors k of each video; 0 for none.
        captions: whether the texts themselves are there.
    """

    files: list[Path]
    texts: int
    videos: int
    frames: int
    captions: bool

    def ids(self) -> Iterator[str]:
        """Read the names of the videos."""
        ...

    def text_blocks(self) -> Iterator[TextBlock]:
        """Read the vectors of the texts."""
        ...

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        """Read the vectors of the texts with the texts."""
        ...

    def video_blocks(self) -> Iterator[VideoBlock]:
        """Read the videos."""
        ...
