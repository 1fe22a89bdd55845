"""Vectors in NumPy files, read as streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dits_adapter._files import sha256
from dits_adapter._user_files import UserFileError, csv_rows, entries, map_array
from dits_adapter._wording import counted
from dits_adapter.data._vector_source import BLOCK_ROWS, VideoBlock
from dits_adapter.data.pairs_file import ID_COLUMN, TEXT_COLUMN
from dits_adapter.data.provenance import MARKS, mark_of
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["NumPyTexts", "NumPyVideos"]

_PAIR_COLUMNS = {"video_id": ID_COLUMN, "text": TEXT_COLUMN, **{name: (name,) for name in MARKS}}


class NumPyTexts:
    """A `TextSource` of an .npy file and files beside it.

    Args:
        vectors: .npy, (n, d).
        width: dimensions; None for those of the file.
        labels: .npy of n whole numbers; without it text i is of video i.
        captions: the texts, one a line.
        pairs: CSV in the place of labels and captions, a row a text.

    Raises:
        InputError: a file cannot be read, or does not fit the others or the width.
    """

    def __init__(
        self,
        vectors: Path,
        width: int | None,
        *,
        labels: Path | None = None,
        captions: Path | None = None,
        pairs: Path | None = None,
    ) -> None:
        if pairs is not None and (labels, captions) != (None, None):
            raise InputError(f"{pairs}: holds what labels and captions do; leave these out.")
        self.label = str(vectors)
        self._paths = [path for path in (vectors, labels, captions, pairs) if path is not None]
        self._vectors = _map(vectors, "floats", (None, width))
        self.count, self.width = self._vectors.shape
        self._labels = np.arange(self.count) if labels is None else _map(labels, "whole numbers", (self.count,))
        self._captions, self._pairs = captions, pairs
        self.captions = captions is not None
        self.marked = False
        if pairs is not None:
            self._check_pairs(pairs)
        if captions is not None:
            for number, text in entries(captions):
                if fault := text_fault(text):
                    raise UserFileError(captions, number, f"the text {fault}")
            _require_lines(captions, self.count)

    def _check_pairs(self, path: Path) -> None:
        """Check the texts of a file of pairs, and find out whether they are there."""
        count = 0
        for line, pair in _rows(path):
            self.captions = "text" in pair
            self.marked = any(name in pair for name in MARKS)
            try:
                _mark(pair)
            except ValueError as error:
                raise UserFileError(path, line, str(error)) from None
            if self.captions and (fault := text_fault(pair["text"])):
                raise UserFileError(path, line, f"the text {fault}")
            count += 1
        if count != self.count:
            raise InputError(
                f"{path}: has {counted(count, 'pair')}; {self.count} are expected, one a text vector."
            )

    @property
    def digests(self) -> list[str]:
        return [sha256(path) for path in self._paths]

    def labels(self) -> NDArray[np.int64] | None:
        return self._labels if self._pairs is None else None

    def names(self) -> Iterator[str]:
        if self._pairs is None:
            raise InputError(f"{self.label}: says of no text which video it describes; give a CSV file (pairs).")
        return (pair["video_id"].strip() for _, pair in _rows(self._pairs))

    def marks(self) -> Iterator[tuple[str, float]]:
        assert self._pairs is not None
        return (_mark(pair) for _, pair in _rows(self._pairs))

    def place(self, row: int) -> str:
        if self._pairs is None:
            return f"{self.label}, row {row}"
        line, _ = next(islice(_rows(self._pairs), row, None))
        return f"{self._pairs}, line {line}"

    def blocks(self) -> Iterator[NDArray[Any]]:
        return (self._vectors[start : start + BLOCK_ROWS] for start in range(0, self.count, BLOCK_ROWS))

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        if self._pairs is not None:
            lines: Iterator[str] = (pair["text"] for _, pair in _rows(self._pairs))
        else:
            assert self._captions is not None
            lines = _values(self._captions)
        for vectors in self.blocks():
            yield vectors, list(islice(lines, len(vectors)))


class NumPyVideos:
    """A `VideoSource` of an .npy file and files beside it.

    Args:
        vectors: .npy, (m, d).
        width: dimensions; None for those of the file.
        frames: .npy, (m, k, d).
        ids: names of the videos, one a line; by default they are named by their rows.

    Raises:
        InputError: a file cannot be read, or does not fit the others or the width.
    """

    def __init__(
        self, vectors: Path, width: int | None, *, frames: Path | None = None, ids: Path | None = None
    ) -> None:
        self._paths = [path for path in (vectors, frames, ids) if path is not None]
        self._vectors = _map(vectors, "floats", (None, width))
        self.count, self.width = self._vectors.shape
        self._frames = None if frames is None else _map(frames, "floats", (self.count, None, self.width))
        self.frames = 0 if self._frames is None else self._frames.shape[1]
        self._ids = ids
        self.label = str(ids or f"the rows of {vectors}, 0 to {self.count - 1}")
        if ids is not None:
            _require_lines(ids, self.count)

    @property
    def digests(self) -> list[str]:
        return [sha256(path) for path in self._paths]

    def ids(self) -> Iterator[str]:
        return map(str, range(self.count)) if self._ids is None else _values(self._ids)

    def blocks(self, first: int = 0) -> Iterator[VideoBlock]:
        ids = islice(self.ids(), first, None)
        for start in range(first, self.count, BLOCK_ROWS):
            vectors = self._vectors[start : start + BLOCK_ROWS]
            frames = vectors[:, None][:, :0] if self._frames is None else self._frames[start : start + BLOCK_ROWS]
            names = np.array(list(islice(ids, BLOCK_ROWS)), object)
            yield VideoBlock(names, vectors, frames, np.full(len(names), "", object))


def _map(path: Path, kind: Literal["floats", "whole numbers"], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Map an .npy file of the expected kind of numbers and shape; a length of None is left open."""
    array = map_array(path)
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in ("f" if kind == "floats" else "iu") or not array.size:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(
            f"{path}: is {array.dtype} of shape {array.shape}; {kind} of shape ({expected}) are expected."
        )
    return array


def _rows(pairs: Path) -> Iterator[tuple[int, dict[str, str]]]:
    return csv_rows(pairs, _PAIR_COLUMNS, optional=("text", *MARKS))


def _mark(pair: Mapping[str, str]) -> tuple[str, float]:
    source, confidence = (pair.get(name, "").strip() or None for name in MARKS)
    return mark_of(source, confidence)


def _require_lines(path: Path, count: int) -> None:
    lines = sum(1 for _ in entries(path))
    if lines != count:
        raise InputError(
            f"{path}: has {counted(lines, 'line that is', 'lines that are')} not blank; {count} are expected."
        )


def _values(path: Path) -> Iterator[str]:
    return (value for _, value in entries(path))
