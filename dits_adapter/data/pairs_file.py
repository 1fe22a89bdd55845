"""Files of pairs: texts and the videos that they describe, read as streams. PAIRS.jsonl has a JSON object a line:

    {"video": "clips/dog.mp4", "text": "a dog chases a ball"}
    {"video": "clips/cat.mp4", "text": ["a cat sleeps", "a sleeping cat"], "id": "cat-17"}

`video` is a file, relative to the JSONL file or to a folder of choice; two paths to one file are one video.
`text` is one text or a list. `id` names the video; without one its `video` does. Lines of one video may lie
anywhere. Other keys, blank lines and blanks around ids are left unread.

PAIRS.csv (or .tsv) has a header and a text a row. The columns are `text` (or `query`, `caption`), `video` (or
`path`, `file`) and `id` (or `video_id`); where videos are no files, an id alone, in one of the columns `video_id`,
`id` and `video`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dits_adapter._files import file_identity, sha256
from dits_adapter._user_files import UserFileError, csv_rows, numbered_lines, parse_json
from dits_adapter.data._ids import (
    ambiguous_stems,
    check_id,
    id_digest,
    number_ids,
    unambiguous_stem,
    without_suffix,
)
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["ID_COLUMN", "TEXT_COLUMN", "NamedVideo", "PairsFile"]

_LISTED = 5
"""Bad lines that an error lists."""

_EXAMPLES = {True: '{"video": "clips/a.mp4", "text": "a dog runs"}', False: '{"id": "a", "text": "a dog runs"}'}
"""Lines as they should be, with videos that are files, and without."""

_TABLES = (".csv", ".tsv")

TEXT_COLUMN = ("text", "query", "caption")
"""Names that a CSV file may give to its column of texts."""

ID_COLUMN = ("video_id", "id", "video")
"""Names that a CSV file may give to its column of ids, where videos are no files."""

_COLUMNS: dict[bool, dict[str, tuple[str, ...]]] = {
    True: {"video": ("video", "path", "file"), "text": TEXT_COLUMN, "id": ("id", "video_id")},
    False: {"id": ID_COLUMN, "text": TEXT_COLUMN},
}
"""Columns of a CSV file with videos that are files, and without."""


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
    """Line: name of the video, True where the line gives it as `id`, its file as written, and its texts."""

    id: str
    named: bool
    video: str
    texts: list[str]


class PairsFile:
    """File of pairs, read through once and checked; 8 bytes a line stay in memory.

    Args:
        path: the file, read as CSV where its name ends so.
        folder: folder that relative videos are relative to; by default that of the file.
        files: True where videos are files; otherwise a line needs no more than an `id`.

    Attributes:
        path: the file.
        folder: folder that relative videos are relative to.
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
        self.folder = self.path.parent if folder is None else Path(folder)
        self._files = files
        self.texts = self.id_bytes = 0
        names, ids, videos, stems = bytearray(), bytearray(), bytearray(), bytearray()
        bad: list[str] = []
        first: str | dict[str, str] = ""
        try:
            self._status = self._identity()
            self.sha256 = sha256(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}).") from None
        for number, line in self._lines():
            first = first or line
            try:
                pair = self._parse(number, line)
            except UserFileError as error:
                bad.append(f"line {number}: {error.reason}")
                continue
            except ValueError as error:
                bad.append(f"line {number}: {error}")
                continue
            video = self._video_key(pair)
            names += id_digest(pair.id)
            ids += id_digest(f"id {pair.id}" if pair.named else video)
            videos += id_digest(video)
            stems += id_digest(without_suffix(pair.id) or pair.id)
            self.texts += len(pair.texts)
            self.id_bytes = max(self.id_bytes, len(pair.id.encode()))
        if bad:
            more = [f"… and {len(bad) - _LISTED} more"] if len(bad) > _LISTED else []
            head = f"{self.path}: lines that are no pairs, {len(bad)} of them; nothing was done."
            if isinstance(first, str):
                head += f" A line is a JSON object such as {_EXAMPLES[files]}."
                if first.lstrip()[:1] not in ("{", "["):
                    head += " This looks like a list or a table; of a table with a header the name ends in .csv."
            raise InputError(f"{head} {'; '.join([*bad[:_LISTED], *more])}.")
        if not names:
            raise InputError(f"{self.path}: holds no pairs.")
        self._numbers = number_ids(videos)
        self._require_one_name_each(number_ids(ids), number_ids(names))
        self.videos = int(self._numbers.max()) + 1
        self._alike = ambiguous_stems(stems, self._numbers)  # each of them is found as it stands, or not at all

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def _video_key(self, pair: _Line) -> str:
        """Return what all lines of one video share: the file behind a path, however the path is written."""
        if not self._files:
            return pair.video
        path = os.path.join(self.folder, pair.video)
        return f"file {file_identity(path) or os.path.realpath(path)}"

    def _require_one_name_each(self, of_id: NDArray[np.int64], of_name: NDArray[np.int64]) -> None:
        """Refuse an id of two videos and a video of two ids: both would split the texts of one video."""
        first = np.unique(of_name, return_index=True)[1]
        differ = np.flatnonzero((self._numbers != of_id) | (self._numbers != self._numbers[first][of_name]))
        if not len(differ):
            return
        row = int(differ[0])  # up to this row the numberings agree, so the id or the video was seen before
        same_id = np.flatnonzero(of_name[:row] == of_name[row])
        same_video = np.flatnonzero(self._numbers[:row] == self._numbers[row])
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
        for number, line in self._lines():
            yield number, self._parse(number, line)

    def _lines(self) -> Iterator[tuple[int, str | dict[str, str]]]:
        """Read the lines of JSON, or the rows of a table, each with its number."""
        if self.path.suffix.lower() in _TABLES:
            optional = ("id",) if self._files else ()
            for number, row in csv_rows(self.path, _COLUMNS[self._files], optional=optional):
                yield number, {name: value for name, value in row.items() if value.strip() or name == "text"}
        else:
            yield from ((number, line) for number, line in numbered_lines(self.path) if line.strip())

    def iter_videos(self) -> Iterator[NamedVideo]:
        """Read the videos, each once, in the order of their numbers."""
        seen = 0
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            if number == seen:
                yield NamedVideo(number, pair.id, os.path.join(self.folder, pair.video))
                seen += 1

    def iter_texts(self) -> Iterator[tuple[str, int]]:
        """Read the texts, each with the number of its video."""
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            for text in pair.texts:
                yield text, number

    def stem(self, name: str) -> str | None:
        """Return an id without the suffix of a video file, if no other id of this file could mean the same."""
        return unambiguous_stem(name, self._alike)

    def _parse(self, number: int, line: str | dict[str, str]) -> _Line:
        """Read one line of JSON, or row of a table.

        Raises:
            ValueError: with what is wrong with the line.
        """
        entry = parse_json(line, self.path, number) if isinstance(line, str) else line
        if not isinstance(entry, dict):
            raise ValueError("is not a JSON object {…}")
        video, name, text = (entry.get(key) for key in ("video", "id", "text"))
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(video, str | None) or not isinstance(name, str | None) or video == "":
            raise ValueError('"video" must be the name of a file, "id" a string or a whole number')
        if self._files and video is None:
            raise ValueError('lacks "video"')
        if video is not None:
            if "\0" in video:
                raise ValueError('"video" holds a NUL')
            video.encode()  # refuses halves of surrogate pairs
            video = self._written_path(video)
        key = video if name is None else name.strip()
        if key is None:
            raise ValueError('lacks "id"')
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not texts:
            raise ValueError('"text" must be a string or a list of strings')
        for value in texts:
            if fault := text_fault(value):
                raise ValueError(f'"text" {fault}')
        return _Line(check_id(key), name is not None, key if video is None else video, texts)

    def _written_path(self, video: str) -> str:
        """Return a path without the blanks around it, unless a file's name has them, and without detours."""
        bare = video.strip()
        if bare and bare != video and not (self._files and os.path.lexists(os.path.join(self.folder, video))):
            video = bare
        return os.path.normpath(video)
