"""Sources of vectors that were made elsewhere: the protocols of both sides, and what joins them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dits_adapter.data._ids import did_you_mean, id_digest, without_suffix
from dits_adapter.errors import InputError
from dits_adapter.texts import shown

__all__ = ["BLOCK_ROWS", "TextSource", "VideoBlock", "VideoSource", "text_labels"]

BLOCK_ROWS = 1024
"""Number of rows that are read at a time."""


class TextSource(Protocol):
    """Vectors of texts.

    Attributes:
        label: name of the source, for messages.
        count: number of texts.
        width: dimensions of a vector.
        captions: True where the texts themselves are there.
        marked: True where each text has a source and a confidence.
    """

    label: str
    count: int
    width: int
    captions: bool
    marked: bool

    @property
    def digests(self) -> list[str]:
        """Return the SHA-256 of what the vectors are read from, in hex."""
        ...

    def labels(self) -> NDArray[np.int64] | None:
        """Return the number of each text's video, (n,); None where `names` names it."""
        ...

    def names(self) -> Iterator[str]:
        """Read the id of each text's video.

        Raises:
            InputError: the videos are numbered, not named.
        """
        ...

    def place(self, row: int) -> str:
        """Return the words that say where a row is, for messages."""
        ...

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read the vectors, (b, d) at a time."""
        ...

    def marks(self) -> Iterator[tuple[str, float]]:
        """Read the source and the confidence of each text, where they are `marked`."""
        ...

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        """Read the vectors with the texts."""
        ...


class VideoBlock(NamedTuple):
    """Consecutive videos.

    Attributes:
        ids: (b,), dtype object.
        vectors: pooled, (b, d), of any norm.
        frames: vectors of the frames, (b, k, d); k may be 0.
        reasons: (b,), dtype object: why a video has no vectors, one clause; empty where it has.
    """

    ids: NDArray[np.object_]
    vectors: NDArray[Any]
    frames: NDArray[Any]
    reasons: NDArray[np.object_]


class VideoSource(Protocol):
    """Vectors of videos.

    Attributes:
        label: name of the source, for messages.
        count: number of videos.
        width: dimensions of a vector.
        frames: frame vectors k of each video; 0 for none.
    """

    label: str
    count: int
    width: int
    frames: int

    @property
    def digests(self) -> list[str]:
        """Return the SHA-256 of what the vectors are read from, in hex; of a store, that of its address."""
        ...

    def ids(self) -> Iterator[str]:
        """Read the ids, each once."""
        ...

    def blocks(self, first: int = 0) -> Iterator[VideoBlock]:
        """Read the videos from this one on."""
        ...


def text_labels(texts: TextSource, videos: VideoSource) -> NDArray[np.int64]:
    """Return the number of each text's video, (n,); an id may have the suffix of a video file.

    Raises:
        InputError: a text of a video that is not there, by its place.
    """
    if (labels := texts.labels()) is not None:
        return labels
    known = np.frombuffer(b"".join(map(id_digest, videos.ids())), "S16")
    order = np.argsort(known)

    def find(wanted: list[str]) -> NDArray[np.int64]:
        digests = np.frombuffer(b"".join(map(id_digest, wanted)), "S16")
        places = order[np.minimum(np.searchsorted(known, digests, sorter=order), len(known) - 1)]
        return np.where(known[places] == digests, places, -1)

    labels = np.empty(texts.count, np.int64)
    names, row = texts.names(), 0
    while part := list(islice(names, BLOCK_ROWS)):
        numbers = find(part)
        if (numbers < 0).any():  # which may name files
            numbers = np.where(numbers < 0, find([without_suffix(name) or name for name in part]), numbers)
        if (numbers < 0).any():
            place = int(np.argmax(numbers < 0))
            meant = did_you_mean(part[place], list(islice(videos.ids(), BLOCK_ROWS))) or "."
            raise InputError(
                f"{texts.place(row + place)}: the video {shown(part[place])} is not in {videos.label}{meant}"
            )
        labels[row : row + len(part)] = numbers
        row += len(part)
    return labels
