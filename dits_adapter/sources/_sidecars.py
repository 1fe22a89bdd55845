"""Files beside videos that hold their texts, found by their names."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from dits_adapter.sources._languages import primary_language
from dits_adapter.sources._subtitles import SUBTITLE_SUFFIXES
from dits_adapter.video._formats import VIDEO_SUFFIXES

__all__ = ["Sidecar", "Sidecars"]

_TEXT_SUFFIXES = SUBTITLE_SUFFIXES | {".description", ".json", ".txt"}

_FLAGS = frozenset({"auto", "cc", "default", "forced", "info", "orig", "sdh"})

_TAG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")


class Sidecar(NamedTuple):
    """File beside a video.

    Attributes:
        path: the file.
        suffix: its suffix, lower case.
        language: language of its texts; empty where its name says none.
    """

    path: str
    suffix: str
    language: str


class Sidecars:
    """Sidecars of videos, folder by folder; the last folder that was asked for is kept.

    A sidecar has the name of its video, with or without the video's suffix, then a language and other marks, and
    its own suffix: `a.srt`, `a.mp4.srt`, `a.en.srt`, `a.en-US.forced.vtt`, `a.info.json`.

    Attributes:
        orphans: files of subtitles whose video is not in their folder.
    """

    def __init__(self) -> None:
        self.orphans: set[str] = set()
        self._folder = ""
        self._found: dict[str, list[Sidecar]] = {}

    def of(self, path: str) -> list[Sidecar]:
        """Return the sidecars of a video, in the order of their names."""
        folder, name = os.path.split(path)
        if folder != self._folder:
            self._folder, self._found = folder, self._read(folder)
        stem = os.path.splitext(name)[0]
        return sorted([*self._found.get(stem, []), *self._found.get(name, [])])

    def _read(self, folder: str) -> dict[str, list[Sidecar]]:
        try:
            names = os.listdir(folder)
        except OSError:
            return {}
        videos = {name for name in names if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES}
        owners = videos | {os.path.splitext(name)[0] for name in videos}
        found: dict[str, list[Sidecar]] = {}
        for name in names:
            stem, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if suffix not in _TEXT_SUFFIXES or name.startswith("."):
                continue
            owner, language = _owner(stem, owners)
            path = os.path.join(folder, name)
            if owner:
                found.setdefault(owner, []).append(Sidecar(path, suffix, language))
            elif suffix in SUBTITLE_SUFFIXES:
                self.orphans.add(path)
        return found


def _owner(stem: str, owners: set[str]) -> tuple[str, str]:
    """Return the video that a name without its suffix belongs to, and the language; empty strings for none."""
    language = ""
    while stem not in owners:
        stem, dot, mark = stem.rpartition(".")
        if not dot or not (mark.lower() in _FLAGS or _TAG.fullmatch(mark)):
            return "", ""
        if mark.lower() not in _FLAGS:
            language = primary_language(mark)
    return stem, language
