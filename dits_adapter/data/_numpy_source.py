"""Vectors in NumPy files, read as streams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dits_adapter._user_files import UserFileError, csv_rows, entries, map_array
from dits_adapter.data._ids import did_you_mean
from dits_adapter.data._vector_source import BLOCK_ROWS, TextBlock, VectorFiles, VideoBlock
from dits_adapter.errors import InputError
from dits_adapter.texts import shown, text_fault

__all__ = ["NumPySource"]

_PAIR_COLUMNS = {"video_id": ("video_id", "id", "video"), "text": ("text", "query", "caption")}
"""Names that a CSV of pairs may give its columns; the texts may be missing."""


class NumPySource:
    """A `VectorSource` of .npy files.

    Args:
        files: the files.
        widths: dimensions of texts and videos; None for those of the files.

    Raises:
        InputError: a file cannot be read, or does not fit the others or the widths.
    """

    def __init__(self, files: VectorFiles, widths: tuple[int | None, int | None]) -> None:
        if files.pairs is not None and (files.labels, files.captions) != (None, None):
            raise InputError(f"{files.pairs}: holds what labels and captions do; leave these out.")
        paths = (files.texts, files.videos, files.labels, files.frames, files.ids, files.captions, files.pairs)
        self.files = [path for path in paths if path is not None]
        self._text = _map(files.texts, "floats", (None, widths[0]))
        self._video = _map(files.videos, "floats", (None, widths[1]))
        self.widths = (self._text.shape[1], self._video.shape[1])
        self.texts, self.videos = len(self._text), len(self._video)
        self._labels = self._frames = None
        if files.labels is not None:
            self._labels = _map(files.labels, "whole numbers", (self.texts,))
        if files.frames is not None:
            self._frames = _map(files.frames, "floats", (self.videos, None, self.widths[1]))
        self.frames = 0 if self._frames is None else self._frames.shape[1]
        self._ids, self._captions, self._pairs = files.ids, files.captions, files.pairs
        self.captions = files.captions is not None
        if files.pairs is not None:
            self._labels = self._read_pairs(files.pairs)
        elif files.labels is None and self.texts != self.videos:
            raise InputError(
                f"{files.texts} has {self.texts} rows, {files.videos} {self.videos}; say with labels which video "
                "each text describes."
            )
        if files.captions is not None:
            for number, text in entries(files.captions):
                if fault := text_fault(text):
                    raise UserFileError(files.captions, number, f"the text {fault}")
        for path, expected in ((files.ids, self.videos), (files.captions, self.texts)):
            if path is not None and (count := sum(1 for _ in entries(path))) != expected:
                raise InputError(f"{path}: has {count} lines that are not blank; {expected} are expected.")

    def _read_pairs(self, path: Path) -> NDArray[np.int64]:
        """Return the row of each text's video, and find out whether the texts are there."""
        rows = {name: row for row, name in enumerate(self.ids())}
        labels = []
        for line, pair in csv_rows(path, _PAIR_COLUMNS):
            name, text = pair["video_id"].strip(), pair.get("text")
            if name not in rows:
                place = self._ids or f"the rows of the videos, 0 to {self.videos - 1}"
                meant = did_you_mean(name, list(islice(rows, BLOCK_ROWS)))
                raise UserFileError(path, line, f"the video {shown(name)} is not in {place}{meant.rstrip('?')}")
            if text is not None and (fault := text_fault(text)):
                raise UserFileError(path, line, f"the text {fault}")
            labels.append(rows[name])
            self.captions = text is not None
        if len(labels) != self.texts:
            raise InputError(f"{path}: has {len(labels)} pairs; {self.texts} are expected, one a text vector.")
        return np.array(labels, np.int64)

    def ids(self) -> Iterator[str]:
        return map(str, range(self.videos)) if self._ids is None else _values(self._ids)

    def text_blocks(self) -> Iterator[TextBlock]:
        labels = np.arange(self.texts) if self._labels is None else self._labels
        for start in range(0, self.texts, BLOCK_ROWS):
            yield TextBlock(self._text[start : start + BLOCK_ROWS], labels[start : start + BLOCK_ROWS])

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        if self._pairs is not None:
            lines: Iterator[str] = (pair["text"] for _, pair in csv_rows(self._pairs, _PAIR_COLUMNS))
        else:
            assert self._captions is not None
            lines = _values(self._captions)
        for start in range(0, self.texts, BLOCK_ROWS):
            yield self._text[start : start + BLOCK_ROWS], list(islice(lines, BLOCK_ROWS))

    def video_blocks(self) -> Iterator[VideoBlock]:
        ids = self.ids()
        for start in range(0, self.videos, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            vectors = self._video[rows]
            frames = vectors[:, None][:, :0] if self._frames is None else self._frames[rows]
            yield VideoBlock(np.array(list(islice(ids, BLOCK_ROWS)), object), vectors, frames)


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


def _values(path: Path) -> Iterator[str]:
    return (value for _, value in entries(path))
