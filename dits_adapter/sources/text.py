"""Texts that lie beside a video: sidecar files."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dits_adapter._user_files import UserFileError, entries
from dits_adapter.sources.base import Findings, FoundText, TextFinder

__all__ = ["VideoTexts"]


class VideoTexts(TextFinder):
    """Finder of the texts that people wrote: sidecars of a video."""

    name = "text"
    sources = frozenset({"subtitles", "sidecar", "title"})

    def __init__(self) -> None:
        self.settings = {}

    def files(self, path: str) -> Iterable[str]:
        """Name the video and its sidecars."""
        return (path, os.path.splitext(path)[0] + ".txt")

    def find(self, path: str) -> Findings:
        """Find the texts of a video; a file beside it that cannot be read is in `failed`."""
        findings = Findings()
        for file in self.files(path):
            if file != path and os.path.exists(file):
                try:
                    findings.texts += [FoundText(text, "sidecar", 0.8) for _, text in entries(file)]
                except UserFileError as error:
                    findings.failed[file] = error.reason
        return findings
