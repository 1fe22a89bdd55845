"""PAIRS.jsonl: texts and the videos that they describe, one JSON object a line, read as a stream.

    {"video": "clips/dog.mp4", "text": "a dog chases a ball"}
    {"video": "clips/cat.mp4", "text": ["a cat sleeps", "a sleeping cat"], "id": "cat-17"}

`video` is a file, relative to the JSONL file or to a folder of choice. `text` is one text or a list. `id` names
the video; without one its `video` does. Lines of one video may lie anywhere. Other keys and blank lines are left
unread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dits_adapter.data._ids import check_id, id_digest, number_ids
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["NamedVideo", "PairsFile"]

_LISTED = 5
"""Bad lines that an error lists."""


class NamedVideo(NamedTuple):
    """Video of a file of pairs.

    Attributes:
        number: number of the video, from 0 in the order of first appearance.
        id: id of the video.
        path: file of the video.
    """

    number: int
    id: str
    path: str


class _Line(NamedTuple):
    id: str
    video: str
    texts: list[str]


class PairsFile:
    """File of pairs, read through once and checked; 8 bytes a line stay in memory.

    Args:
        path: the JSONL file.
        folder: folder that relative videos are relative to; by default that of the JSONL file.
        files: True where videos are files; otherwise a line needs no more than an `id`.

    Attributes:
        sha256: SHA-256 of the file's bytes.
        videos, texts: numbers of videos and of texts.
        id_bytes: length of the longest id in UTF-8.

    Raises:
        InputError: the file cannot be read, holds no pairs, or has bad lines; the message lists them with reasons.
    """

    def __init__(
        self, path: str | PathLike[str], folder: str | PathLike[str] | None = None, *, files: bool = True
    ) -> None:
        self.path = Path(path)
        self._folder = self.path.parent if folder is None else Path(folder)
        self._files = files
        self.texts = self.id_bytes = 0
        digest = hashlib.sha256()
        ids, videos = bytearray(), bytearray()
        bad: list[str] = []
        try:
            self._status = self._identity()
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    digest.update(line)
                    if not line.strip():
                        continue
                    try:
                        pair = _parse(line, files)
                    except ValueError as error:
                        bad.append(f"line {number}: {error}")
                        continue
                    ids += id_digest(pair.id)
                    videos += id_digest(pair.video)
                    self.texts += len(pair.texts)
                    self.id_bytes = max(self.id_bytes, len(pair.id.encode()))
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}).") from None
        if bad:
            more = [f"… and {len(bad) - _LISTED} more"] if len(bad) > _LISTED else []
            head = f"{self.path}: lines that are no pairs, {len(bad)} of them; nothing was done."
            raise InputError("\n".join([head, *bad[:_LISTED], *more]))
        if not ids:
            raise InputError(f"{self.path}: holds no pairs.")
        self.sha256 = digest.hexdigest()
        self._numbers = number_ids(ids)
        self._require_one_name_each(number_ids(videos))
        self.videos = int(self._numbers.max()) + 1

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def _require_one_name_each(self, of_video: NDArray[np.int64]) -> None:
        """Refuse an id of two videos and a video of two ids: both would split the texts of one video."""
        differ = np.flatnonzero(self._numbers != of_video)
        if not len(differ):
            return
        row = int(differ[0])  # up to this row the two numberings agree, so one of the two was seen before
        same_id = np.flatnonzero(self._numbers[:row] == self._numbers[row])
        same_video = np.flatnonzero(of_video[:row] == of_video[row])
        before = int(same_id[0] if len(same_id) else same_video[0])
        (line, pair), (earlier, other) = (next(islice(self._pairs(), place, None)) for place in (row, before))
        if len(same_id):
            raise InputError(
                f"{self.path}, line {line}: the id {pair.id!r} is given to {pair.video}, on line {earlier} to "
                f"{other.video}; an id names one video."
            )
        raise InputError(
            f"{self.path}, line {line}: the video {pair.video} has the id {pair.id!r}, on line {earlier} "
            f"{other.id!r}; give a video one id, or none on any line."
        )

    def _pairs(self) -> Iterator[tuple[int, _Line]]:
        """Read the pairs, each with the number of its line."""
        if self._identity() != self._status:
            raise InputError(f"{self.path}: was changed while it was read; start again.")
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse(line, self._files)

    def iter_videos(self) -> Iterator[NamedVideo]:
        """Read the videos, each once, in the order of their numbers."""
        seen = 0
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            if number == seen:
                yield NamedVideo(number, pair.id, os.path.join(self._folder, pair.video))
                seen += 1

    def iter_texts(self) -> Iterator[tuple[str, int]]:
        """Read the texts, each with the number of its video."""
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            for text in pair.texts:
                yield text, number


def _parse(line: bytes, files: bool) -> _Line:
    """Read one line.

    Raises:
        ValueError: with what is wrong with the line.
    """
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object {…}")
    video, name, text = (entry.get(key) for key in ("video", "id", "text"))
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(video, str | None) or not isinstance(name, str | None) or video == "":
        raise ValueError('"video" must be the name of a file, "id" a string or a whole number')
    if files and video is None:
        raise ValueError('lacks "video"')
    video = None if video is None else os.path.normpath(video)
    key = video if name is None else name
    if key is None:
        raise ValueError('lacks "id"')
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list) or not texts:
        raise ValueError('"text" must be a string or a list of strings')
    for value in texts:
        if fault := text_fault(value):
            raise ValueError(f'"text" {fault}')
    return _Line(check_id(key), key if video is None else video, texts)
