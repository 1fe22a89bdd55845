"""Vectors in NumPy files, read as streams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dits_adapter.data.vector_files import BLOCK, TextBlock, VideoBlock
from dits_adapter.errors import InputError


def _map(path: Path, what: Literal["floats", "whole numbers"], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Map an .npy file of the expected kind of numbers and shape, of which None is left open."""
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise InputError(f"{path}: is no .npy array of numbers, as np.save writes it ({error}).") from None
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in ("f" if what == "floats" else "iu") or not array.size:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(
            f"{path}: is {array.dtype} of shape {array.shape}; {what} of shape ({expected}) are expected."
        )
    return array


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}).") from None


class NumPyFiles:
    """A `Source` of .npy files."""

    def __init__(
        self,
        width: int,
        texts: Path,
        videos: Path,
        labels: Path | None,
        frames: Path | None,
        ids: Path | None,
        captions: Path | None,
    ) -> None:
        self.files = [path for path in (texts, videos, labels, frames, ids, captions) if path is not None]
        self._text = _map(texts, "floats", (None, width))
        self._video = _map(videos, "floats", (None, width))
        self.texts, self.videos = len(self._text), len(self._video)
        self._labels = None if labels is None else _map(labels, "whole numbers", (self.texts,))
        self._frames = None if frames is None else _map(frames, "floats", (self.videos, None, width))
        self.frames = 0 if self._frames is None else self._frames.shape[1]
        self._ids, self._captions = ids, captions
        self.captions = captions is not None
        if labels is None and self.texts != self.videos:
            raise InputError(
                f"{texts} has {self.texts} rows, {videos} {self.videos}; say with labels which video each text "
                "describes."
            )
        for path, expected in ((ids, self.videos), (captions, self.texts)):
            if path is not None and (count := sum(1 for _ in _lines(path))) != expected:
                raise InputError(f"{path}: has {count} lines; {expected} are expected.")

    def ids(self) -> Iterator[str]:
        return map(str, range(self.videos)) if self._ids is None else _lines(self._ids)

    def text_blocks(self) -> Iterator[TextBlock]:
        labels = np.arange(self.texts) if self._labels is None else self._labels
        for start in range(0, self.texts, BLOCK):
            yield TextBlock(self._text[start : start + BLOCK], labels[start : start + BLOCK])

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        assert self._captions is not None
        lines = _lines(self._captions)
        for start in range(0, self.texts, BLOCK):
            yield self._text[start : start + BLOCK], list(islice(lines, BLOCK))

    def video_blocks(self) -> Iterator[VideoBlock]:
        names = self.ids()
        for start in range(0, self.videos, BLOCK):
            vectors = self._video[start : start + BLOCK]
            frames = self._frames[start : start + BLOCK] if self._frames is not None else vectors[:, None][:, :0]
            yield VideoBlock(np.array(list(islice(names, BLOCK)), object), vectors, frames)
