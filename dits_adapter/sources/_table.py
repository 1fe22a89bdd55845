"""Table of texts: a CSV file that says what is to be seen in which video."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from dits_adapter._user_files import UserFileError, csv_rows
from dits_adapter.sources._info import texts_of_fields
from dits_adapter.sources._kinds import Kind

__all__ = ["TextTable"]

_COLUMNS = {
    "video": ("video", "path", "file", "filename"),
    "text": ("text", "query", "caption"),
    "title": ("title",),
    "description": ("description",),
    "tags": ("tags", "keywords"),
}


class TextTable:
    """Table with a header, a column of videos, and some of the columns `text`, `title`, `description` and `tags`.

    A video is named by its path, from the table's folder or in full, by the end of that (`clips/a.mp4`, `a.mp4`),
    or by its name without a suffix; it may have several rows.

    Raises:
        UserFileError: the table cannot be read, or has no column of videos or none of texts.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._texts: dict[str, list[tuple[Kind, str]]] = {}
        self._used: set[str] = set()
        texts = [key for key in _COLUMNS if key != "video"]
        for _, row in csv_rows(path, _COLUMNS, optional=texts):
            if len(row) == 1:
                raise UserFileError(path, 1, "the header has no column text, title, description or tags")
            video = os.path.normpath(row.pop("video").strip())
            said: list[tuple[Kind, str]] = [("caption", row["text"])] if row.get("text", "").strip() else []
            self._texts.setdefault(video, []).extend([*said, *texts_of_fields(dict(row))])

    def of(self, path: str) -> list[tuple[Kind, str]]:
        """Return the texts of a video, an absolute path, each with its kind."""
        parts = path.split(os.sep)
        ends = [os.path.relpath(path, os.path.abspath(self._path.parent))]
        ends += [os.sep.join(parts[n:]) for n in range(len(parts))]
        ends.append(os.path.splitext(parts[-1])[0])
        for name in ends:
            if name in self._texts:
                self._used.add(name)
                return self._texts[name]
        return []

    def unused(self) -> list[str]:
        """List the videos of rows that have not been asked for."""
        return [name for name in self._texts if name not in self._used]
