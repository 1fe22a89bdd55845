"""Vectors in NumPy files, read as streams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dits_adapter._user_files import UserFileError, entries, map_array
from dits_adapter.data._vector_source import BLOCK_ROWS, TextBlock, VectorFiles, VideoBlock
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["NumPySource"]


class NumPySource:
    """A `VectorSource` of .npy files.

    Args:
        files: the files.
        width: dimension d of the vectors; None for that of the texts.

    Raises:
        InputError: a file cannot be read, or does not fit the others or the width.
    """

    def __init__(self, files: VectorFiles, width: int | None) -> None:
        paths = (files.texts, files.videos, files.labels, files.frames, files.ids, files.captions)
        self.files = [path for path in paths if path is not None]
        self._text = _map(files.texts, "floats", (None, width))
        width = self._text.shape[1]
        self._video = _map(files.videos, "floats", (None, width))
        self.texts, self.videos = len(self._text), len(self._video)
        self._labels = self._frames = None
        if files.labels is not None:
            self._labels = _map(files.labels, "whole numbers", (self.texts,))
        if files.frames is not None:
            self._frames = _map(files.frames, "floats", (self.videos, None, width))
        self.frames = 0 if self._frames is None else self._frames.shape[1]
        self._ids, self._captions = files.ids, files.captions
        self.captions = files.captions is not None
        if files.labels is None and self.texts != self.videos:
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

    def ids(self) -> Iterator[str]:
        return map(str, range(self.videos)) if self._ids is None else _values(self._ids)

    def text_blocks(self) -> Iterator[TextBlock]:
        labels = np.arange(self.texts) if self._labels is None else self._labels
        for start in range(0, self.texts, BLOCK_ROWS):
            yield TextBlock(self._text[start : start + BLOCK_ROWS], labels[start : start + BLOCK_ROWS])

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
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
