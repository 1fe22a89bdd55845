"""Sources of vectors: the protocol of the readers of files, and the blocks that they yield."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_ROWS", "TextBlock", "VectorFiles", "VectorSource", "VideoBlock"]

BLOCK_ROWS = 1024
"""Number of rows that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class VectorFiles:
    """Files of vectors that were made elsewhere, in the formats that the module of `import_vectors` describes.

    Attributes:
        texts: .npy or .parquet; not normalized, as the encoder gives them.
        videos: .npy or .parquet; of any norm.
        labels, frames, ids, captions, pairs: files beside .npy; in Parquet these are columns. `pairs` is given in
            the place of labels and captions.
    """

    texts: Path
    videos: Path
    labels: Path | None = None
    frames: Path | None = None
    ids: Path | None = None
    captions: Path | None = None
    pairs: Path | None = None


class TextBlock(NamedTuple):
    """Consecutive texts: vectors (b, d), numbers of their videos (b,)."""

    vectors: NDArray[Any]
    videos: NDArray[np.int64]


class VideoBlock(NamedTuple):
    """Consecutive videos: ids (b,) of dtype object, pooled vectors (b, d), frame vectors (b, k, d); k may be 0."""

    ids: NDArray[np.object_]
    vectors: NDArray[Any]
    frames: NDArray[Any]


class VectorSource(Protocol):
    """Reader of files of vectors.

    Attributes:
        files: all of them.
        texts, videos: numbers of texts and of videos.
        widths: dimensions of the texts' and the videos' vectors.
        frames: frame vectors k of each video; 0 for none.
        captions: True where the texts themselves are in the files.
    """

    files: list[Path]
    texts: int
    videos: int
    widths: tuple[int, int]
    frames: int
    captions: bool

    def ids(self) -> Iterator[str]:
        """Read the ids of the videos."""
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
