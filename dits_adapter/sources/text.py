"""Texts that are there: beside a video, in it, in a table, in its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from os import PathLike

from dits_adapter.errors import InputError
from dits_adapter.sources._collected import Collected
from dits_adapter.sources._cues import Division
from dits_adapter.sources._kinds import Kind
from dits_adapter.sources._languages import primary_language
from dits_adapter.sources._sidecars import Sidecars
from dits_adapter.sources._table import TextTable
from dits_adapter.sources._titles import name_words
from dits_adapter.sources.base import Findings, TextFinder
from dits_adapter.video._container_texts import read_container_texts

__all__ = ["VideoTexts"]


class VideoTexts(TextFinder):
    """Finder of the texts that people wrote: sidecar files, the container's own, rows of a table, names of files.

    Timed texts become texts of spans: of 5 to 20 s, as sentences and pauses have it, or of the segments that
    ingestion cuts; of a video no longer than that, texts of the whole.

    Args:
        language: two letters; subtitles that are marked as of another language are left out.
        segment_seconds: length of the segments that ingestion cuts.
        table: CSV file with a column `video` and some of `text`, `title`, `description` and `tags`.
        names: take the words that names of files consist of, and of folders below those that are searched.

    Raises:
        InputError: no such language or segments, or a table that cannot be read.
    """

    name = "text"
    sources = frozenset({"sidecar", "subtitles", "title"})

    def __init__(
        self,
        *,
        language: str | None = None,
        segment_seconds: float | None = None,
        table: str | PathLike[str] | None = None,
        names: bool = False,
    ) -> None:
        Division(1.0, segment_seconds)  # refuses segments that cannot be cut
        self._language = None if language is None else primary_language(language)
        if self._language == "":
            raise InputError(f"language is {language!r}; it is a code such as en.")
        self._segment_seconds = segment_seconds
        self._table = None if table is None else TextTable(table)
        self._names = names
        self._places: Collection[str] = ()
        self._sidecars = Sidecars()
        self.settings = {"language": self._language, "segment_seconds": segment_seconds, "names": names}

    def files(self, path: str) -> Iterable[str]:
        """Name the video and its sidecars."""
        return [path, *(sidecar.path for sidecar in self._sidecars.of(path))]

    def state(self, path: str) -> str:
        """Return what tells whether a video's texts may have changed: its files and its rows of the table."""
        rows = [] if self._table is None else self._table.of(path)
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16] if rows else ""
        return f"{super().state(path)}; {digest}"

    def begin(self, places: Collection[str]) -> None:
        """Remember the folders that are searched, whose names tell nothing of a video in them."""
        self._places = places

    def leftovers(self) -> Findings:
        """Return subtitles and rows of the table that belong to no video."""
        orphans = sorted(self._sidecars.orphans)
        rest = Findings(failed=dict.fromkeys(orphans, "no video of this name lies beside it"))
        if self._table is not None and (unused := self._table.unused()):
            rest.left_out[f"is in the table for a video that the sources lack, such as {unused[0]}"] = len(unused)
        return rest

    def find(self, path: str) -> Findings:
        """Find the texts of a video; a file beside it that cannot be read is in `failed`.

        Raises:
            VideoError: the video itself cannot be read.
        """
        contained = read_container_texts(path)
        collected = Collected(path, contained.duration, self._segment_seconds, self._wants)
        collected.add_container(contained)
        for sidecar in self._sidecars.of(path):
            collected.add_sidecar(sidecar)
        if self._table is not None:
            collected.add(self._table.of(path))
        if self._names:
            collected.add(_names_of(path, self._places))
        return collected.findings

    def _wants(self, language: str) -> bool:
        return not language or self._language in (None, language)


def _names_of(path: str, places: Collection[str]) -> Iterator[tuple[Kind, str]]:
    """Find the words of a file's name, and of its folder's where that is none of the places that are searched."""
    folder, name = os.path.split(path)
    for stem in (os.path.splitext(name)[0], "" if folder in places else os.path.basename(folder)):
        if words := name_words(stem):
            yield "name", words
