"""Matching vectors that are read block by block, and the moments that closed forms are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import shown_repr
from dits_adapter.errors import InputError

__all__ = ["Matches", "Moments", "Rows"]

_BLOCK = 8192
"""Rows in memory at a time: 32 MB a side in float64 at d = 512."""

_Matrix = NDArray[np.float64]


class Rows(Protocol):
    """Matrix (n, d) whose rows are read where they are indexed: an array, a memory map, shards of a cache."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, d)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """Return the rows of a slice or an array of integers."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Texts and their videos, row by row.

    Attributes:
        text: text embeddings, (n, d), or of another width than the videos.
        video: embeddings of the matching videos, (n, d).
        groups: number of the group that each text's video belongs to, (n,), from 0 on: folds keep groups together.
            None where each distinct video is a group.
        judges: mask of the texts that a cross-validation chooses by, (n,); None for all.
    """

    text: Rows
    video: Rows
    groups: NDArray[np.int64] | None = None
    judges: NDArray[np.bool_] | None = None

    __repr__ = shown_repr

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def moments(self) -> Moments:
        """Moments of all rows, of one pass over them."""
        return Moments.of(self)

    def blocks(self) -> Iterator[tuple[_Matrix, _Matrix]]:
        """Yield unit texts and unit videos in float64, some thousand rows at a time.

        Raises:
            InputError: a row that is zero or not finite.
        """
        for start in range(0, len(self), _BLOCK):
            rows = slice(start, start + _BLOCK)
            yield _unit(self.text[rows], "text", start), _unit(self.video[rows], "video", start)


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of unit texts and their unit videos.

    Attributes:
        count: number of pairs n.
        text: mean of the texts, (d1,).
        video: mean of the videos, text by text, (d2,).
        text_text: Σ (t − mean) (t − mean)ᵀ, (d1, d1).
        text_video: Σ (t − mean) (v − mean)ᵀ, (d1, d2).
    """

    count: int
    text: _Matrix
    video: _Matrix
    text_text: _Matrix
    text_video: _Matrix

    @classmethod
    def of(cls, matches: Matches) -> Moments:
        """Sum over all rows, a block at a time.

        Rows are taken relative to the mean of the first block, so that centered sums do not cancel.

        Raises:
            InputError: no rows, or one that is zero or not finite.
        """
        if not len(matches):
            raise InputError("there are no pairs to fit an adapter to.")
        widths = matches.text.shape[1], matches.video.shape[1]
        origins = tuple(block.mean(0) for block in next(matches.blocks()))
        sums = np.zeros(widths[0]), np.zeros(widths[1])
        text_text, text_video = np.zeros((widths[0], widths[0])), np.zeros(widths)
        for text, video in matches.blocks():
            text -= origins[0]
            video -= origins[1]
            sums[0][:] += text.sum(0)
            sums[1][:] += video.sum(0)
            text_text += text.T @ text
            text_video += text.T @ video
        count = len(matches)
        offsets = sums[0] / count, sums[1] / count
        return cls(
            count,
            origins[0] + offsets[0],
            origins[1] + offsets[1],
            text_text - count * np.outer(offsets[0], offsets[0]),
            text_video - count * np.outer(offsets[0], offsets[1]),
        )


def _unit(vectors: NDArray[Any], side: str, first: int) -> _Matrix:
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~((norms > 0) & np.isfinite(norms)))
    if len(bad):
        raise InputError(f"the {side} of pair {first + bad[0]} is zero, NaN or infinite; it has no direction.")
    return np.asarray(rows / norms)
