"""Ids of videos: their limits, likeness, numbering, and storage as bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dits_adapter.data._sharded_array import ShardedArray
from dits_adapter.errors import InputError
from dits_adapter.video._formats import VIDEO_SUFFIXES

__all__ = [
    "MOST_ID_BYTES",
    "VideoIds",
    "ambiguous_stems",
    "check_id",
    "did_you_mean",
    "encode_ids",
    "id_digest",
    "match_id",
    "number_ids",
    "source_file",
    "span_id",
    "unambiguous_stem",
    "without_suffix",
]

_SPAN = re.compile(r"#t=[\d.]+,[\d.]+$")
"""Fragment of a span at the end of an id."""

MOST_ID_BYTES = 1024
"""Greatest length of an id in UTF-8."""


class VideoIds(Sequence[str]):
    """Ids of videos, decoded where they are indexed.

    Args:
        rows: UTF-8 padded with zeros, (m, b) uint8.
    """

    def __init__(self, rows: ShardedArray) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        rows = self._rows[place]
        return _decode(rows) if rows.ndim == 1 else [_decode(row) for row in rows]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            yield from self[start : start + 4096]

    def select(self, rows: NDArray[np.int64]) -> VideoIds:
        """Return the ids of some rows in the order of the rows, without reading."""
        return VideoIds(self._rows.select(rows))


def _decode(row: NDArray[np.uint8]) -> str:
    return row.tobytes().rstrip(b"\0").decode()


def encode_ids(ids: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Return ids as rows of UTF-8 padded with zeros, (len(ids), width) uint8."""
    return np.array([name.encode() for name in ids], f"S{width}").view(np.uint8).reshape(len(ids), width)


def check_id(name: str) -> str:
    """Return a video's id after checking it.

    Raises:
        InputError: the id is empty, too long for a cache, or holds a NUL.
    """
    if not name or "\0" in name or len(name.encode()) > MOST_ID_BYTES:
        raise InputError(f"the id {name[:60]!r} is empty, holds a NUL or is longer than {MOST_ID_BYTES} bytes")
    return name


def without_suffix(name: str) -> str | None:
    """Return an id without the suffix of a video file; None where it has none.

    >>> without_suffix("video9770.mp4"), without_suffix("1012_Unbreakable_00.05.16.065")
    ('video9770', None)
    """
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in VIDEO_SUFFIXES else None


def span_id(name: str, start: float, end: float) -> str:
    """Return the id of a span of a video, in seconds, as a media fragment (W3C Media Fragments URI, 4.2.1).

    >>> span_id("a.mp4", 12.0, 20.5)
    'a.mp4#t=12,20.5'
    """
    first, last = (f"{seconds:.3f}".rstrip("0").rstrip(".") for seconds in (start, end))
    return f"{name}#t={first},{last}"


def source_file(name: str) -> str:
    """Return the file that an id of `span_id` is a span of; other ids are files of their own.

    >>> source_file("a.mp4#t=12,20.5"), source_file("b.mp4")
    ('a.mp4', 'b.mp4')
    """
    return _SPAN.sub("", name)


def ambiguous_stems(stems: bytes | bytearray, numbers: NDArray[np.int64]) -> frozenset[bytes]:
    """Return the digests of ids without suffixes that several videos share.

    Args:
        stems: `id_digest` of each line's id without suffix.
        numbers: number of each line's video.
    """
    kinds, place, of_line = np.unique(np.frombuffer(stems, "S16"), return_index=True, return_inverse=True)
    alike = np.unique(of_line[numbers != numbers[place][of_line]])
    return frozenset(kinds[alike].tolist())  # without the zeros that a digest ends in


def unambiguous_stem(name: str, alike: Collection[bytes]) -> str | None:
    """Return an id without the suffix of a video file, if it is none of the `ambiguous_stems`."""
    stem = without_suffix(name)
    return None if stem is None or id_digest(stem).rstrip(b"\0") in alike else stem


def match_id(name: str, known: Collection[str]) -> str | None:
    """Return the known id that a name is, as it stands or without the suffix of a video file; None for neither."""
    stem = without_suffix(name)
    return name if name in known else stem if stem is not None and stem in known else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the question that names the known id most like a name that is not among them; "" where none is."""
    by_stem = {without_suffix(other) or other: other for other in known}  # suffixes alone make short names alike
    nearest = get_close_matches(without_suffix(name) or name, by_stem, n=1)
    return f"; did you mean {by_stem[nearest[0]]!r}?" if nearest else ""


def id_digest(name: str) -> bytes:
    """Return the 16-byte digest of an id."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def number_ids(digests: bytes | bytearray) -> NDArray[np.int64]:
    """Number ids given by their digests, (n,) from 0 in the order of first appearance; equal ids alike.

    >>> number_ids(b"".join(map(id_digest, ["dog", "cat", "dog", "bird"]))).tolist()
    [0, 1, 0, 2]
    """
    _, first, inverse = np.unique(np.frombuffer(digests, "S16"), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
