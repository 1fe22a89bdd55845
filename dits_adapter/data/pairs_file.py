"""Files of pairs: texts and the videos that they describe, read as streams. PAIRS.jsonl has a JSON object a line:

    {"video": "clips/dog.mp4", "text": "a dog chases a ball"}
    {"video": "clips/cat.mp4", "text": ["a cat sleeps", "a sleeping cat"], "id": "cat-17"}

`video` is a file, relative to the JSONL file or to a folder of choice; two paths to one file are one video.
`text` is one text or a list. `id` names the video; without one its `video` does. Lines of one video may lie
anywhere. Other keys, blank lines and blanks around ids are left unread. These keys may be left out:

    {"video": "a.mp4", "start": 12, "end": 20, "text": "a dog barks", "source": "speech", "confidence": 0.82}

`start` and `end`, in seconds, make that span of the file the line's video, to the millisecond; without an `id`
it is called `a.mp4#t=12,20`. `source` is where the text comes from, `human` by default
(`dits_adapter.data.provenance`). `confidence`, above 0 and up to 1, is the probability that the text is right for
the video, 1 by default.

PAIRS.csv (or .tsv) has a header and a text a row. The columns are `text` (or `query`, `caption`), `video` (or
`path`, `file`) and `id` (or `video_id`), and, where they are there, `start`, `end`, `source` and `confidence`;
where videos are no files, an id alone, in one of the columns `video_id`, `id` and `video`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dits_adapter._files import file_identity, sha256
from dits_adapter._reprs import short_repr
from dits_adapter._user_files import UserFileError, csv_rows, numbered_lines, parse_json
from dits_adapter.data._ids import (
    ambiguous_stems,
    check_id,
    id_digest,
    number_ids,
    span_id,
    unambiguous_stem,
    without_suffix,
)
from dits_adapter.data.provenance import MARKS, SOURCES, mark_of, number_of
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["ID_COLUMN", "TEXT_COLUMN", "NamedVideo", "PairsFile", "VideoText"]

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

_FURTHER = ("start", "end", *MARKS)
"""Further columns of a CSV file, all optional."""


class NamedVideo(NamedTuple):
    """Video of a file of pairs.

    Attributes:
        number: number of the video, from 0 in the order of first appearance.
        id: id of the video.
        path: its file; where videos are no files, the name by which a collection knows the video.
        file: number of its file, or of what `path` names, from 0 in the order of first appearance.
        span: first and last second of the part of the file that is the video; None for the whole.
    """

    number: int
    id: str
    path: str
    file: int
    span: tuple[float, float] | None = None


class VideoText(NamedTuple):
    """Text of a file of pairs.

    Attributes:
        text: the text.
        video: number of the video that it describes.
        source: where the text comes from, one of `SOURCES`.
        confidence: probability that the text is right for the video, above 0 and up to 1.
    """

    text: str
    video: int
    source: str
    confidence: float


class _Line(NamedTuple):
    """Line: name of the video, True where the line gives it as `id`, its file as written, its texts, and marks."""

    id: str
    named: bool
    video: str
    texts: list[str]
    span: tuple[float, float] | None
    source: str
    confidence: float


class PairsFile:
    """File of pairs, read through once and checked; 16 bytes a line stay in memory.

    Args:
        path: the file, read as CSV where its name ends so.
        folder: folder that relative videos are relative to; by default that of the file.
        files: True where videos are files; otherwise a line needs no more than an `id`.
        min_confidence: lines of less confidence are left out.

    Attributes:
        path: the file.
        folder: folder that relative videos are relative to.
        sha256: SHA-256 of the file's bytes; together with `min_confidence` where that is set.
        videos, texts: numbers of videos and of texts.
        id_bytes: length of the longest id in UTF-8.
        grouped: True where a file has several videos.
        marked: True where a text has another source than `human`, or a confidence below 1.
        left_out: number of lines of less than `min_confidence`.

    Raises:
        InputError: the file cannot be read, holds no pairs, or has bad lines; the message lists them with reasons.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        folder: str | PathLike[str] | None = None,
        *,
        files: bool = True,
        min_confidence: float = 0.0,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise InputError(f"min_confidence is {min_confidence:g}; expected a probability from 0 to 1.")
        self.path = Path(path)
        self.folder = self.path.parent if folder is None else Path(folder)
        self._files, self._least = files, min_confidence
        self.texts = self.id_bytes = self.left_out = 0
        self.marked = False
        names, ids, videos, stems, wholes = (bytearray() for _ in range(5))
        bad: list[str] = []
        first: str | dict[str, str] = ""
        try:
            self._status = self._identity()
            self.sha256 = sha256(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}).") from None
        if min_confidence:
            self.sha256 = hashlib.sha256(f"{self.sha256} {min_confidence!r}".encode()).hexdigest()
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
            if pair.confidence < min_confidence:
                self.left_out += 1
                continue
            whole = self._video_key(pair)
            video = whole if pair.span is None else span_id(whole, *pair.span)
            known = self._known_as(pair)
            names += id_digest(pair.id)
            ids += id_digest(f"id {pair.id}" if pair.named else video)
            videos += id_digest(video)
            stems += id_digest(without_suffix(known) or known)
            wholes += id_digest(whole)
            self.marked |= pair.source != SOURCES[0] or pair.confidence < 1
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
            which = f" of confidence {min_confidence:g} or more, and {self.left_out:,} of less"
            raise InputError(f"{self.path}: holds no pairs{which if self.left_out else ''}.")
        self._numbers, self._files_of = number_ids(videos), number_ids(wholes)
        self._require_one_name_each(number_ids(ids), number_ids(names))
        self.videos = int(self._numbers.max()) + 1
        self.grouped = int(self._files_of.max()) + 1 < self.videos
        self._alike = ambiguous_stems(stems, self._files_of)  # each is found as it stands, or not at all

    def __repr__(self) -> str:
        return short_repr(self, str(self.path), texts=self.texts, videos=self.videos)

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def _known_as(self, pair: _Line) -> str:
        """Return the name of a line's video in a collection; of a span, the name of what it is a span of."""
        return pair.id if pair.named or pair.span is None else pair.video

    def _video_key(self, pair: _Line) -> str:
        """Return what all lines of one file share: the file behind a path, however the path is written."""
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
                f"{self.path}, line {line}: the id {pair.id!r} is given to {_shown(pair)}, on line {earlier} to "
                f"{_shown(other)}; an id names one video."
            )
        raise InputError(
            f"{self.path}, line {line}: the video {_shown(pair)} has the id {pair.id!r}, on line {earlier} "
            f"{other.id!r}; give a video one id, or none on any line."
        )

    def _pairs(self) -> Iterator[tuple[int, _Line]]:
        """Read the pairs that are not left out, each with the number of its line."""
        if self._identity() != self._status:
            raise InputError(f"{self.path}: was changed while it was read; start again.")
        for number, line in self._lines():
            pair = self._parse(number, line)
            if pair.confidence >= self._least:
                yield number, pair

    def _lines(self) -> Iterator[tuple[int, str | dict[str, str]]]:
        """Read the lines of JSON, or the rows of a table, each with its number."""
        if self.path.suffix.lower() in _TABLES:
            columns = _COLUMNS[self._files] | {name: (name,) for name in _FURTHER}
            optional = ("id", *_FURTHER) if self._files else _FURTHER
            for number, row in csv_rows(self.path, columns, optional=optional):
                yield number, {name: value for name, value in row.items() if value.strip() or name == "text"}
        else:
            yield from ((number, line) for number, line in numbered_lines(self.path) if line.strip())

    def iter_videos(self) -> Iterator[NamedVideo]:
        """Read the videos, each once, in the order of their numbers."""
        seen = 0
        numbers = zip(map(int, self._numbers), map(int, self._files_of), strict=True)
        for (number, file), (_, pair) in zip(numbers, self._pairs(), strict=True):
            if number == seen:
                path = os.path.join(self.folder, pair.video) if self._files else self._known_as(pair)
                yield NamedVideo(number, pair.id, path, file, pair.span)
                seen += 1

    def iter_texts(self) -> Iterator[VideoText]:
        """Read the texts, each with the number of its video, its source and its confidence."""
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            for text in pair.texts:
                yield VideoText(text, number, pair.source, pair.confidence)

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
        span = _span(entry)
        name = None if name is None else name.strip()
        if name is not None and video is None and span is not None:
            video, name = name, None  # a span of the video of that id
        whole = video if name is None else name
        if whole is None:
            raise ValueError('lacks "id"')
        key = whole if name is not None or span is None else span_id(whole, *span)
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not texts:
            raise ValueError('"text" must be a string or a list of strings')
        for value in texts:
            if fault := text_fault(value):
                raise ValueError(f'"text" {fault}')
        return _Line(
            check_id(key),
            name is not None,
            whole if video is None else video,
            texts,
            span,
            *mark_of(entry.get("source"), entry.get("confidence")),
        )

    def _written_path(self, video: str) -> str:
        """Return a path without the blanks around it, unless a file's name has them, and without detours."""
        bare = video.strip()
        if bare and bare != video and not (self._files and os.path.lexists(os.path.join(self.folder, video))):
            video = bare
        return os.path.normpath(video)


def _shown(pair: _Line) -> str:
    return pair.video if pair.span is None else span_id(pair.video, *pair.span)


def _span(entry: dict[str, Any]) -> tuple[float, float] | None:
    """Return the span of a line, in seconds rounded to milliseconds; None where it has none.

    Raises:
        ValueError: a span that is none.
    """
    start, end = (number_of(entry.get(name), name) for name in ("start", "end"))
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise ValueError('has "start" or "end" alone; give both, in seconds, or none')
    start, end = round(start, 3), round(end, 3)
    if not 0 <= start < end:
        raise ValueError(f'"start" is {start:g} and "end" {end:g}; expected seconds with 0 <= start < end')
    return start, end
