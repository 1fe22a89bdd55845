"""Texts of one video, gathered from the container and from the files beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from dits_adapter._user_files import UserFileError
from dits_adapter.sources._cues import Cue, Division, clean_cues, cues_within, join_cues
from dits_adapter.sources._info import read_captions, read_info, texts_of_fields
from dits_adapter.sources._kinds import Kind, of_kind
from dits_adapter.sources._languages import primary_language
from dits_adapter.sources._sidecars import Sidecar
from dits_adapter.sources._subtitles import SUBTITLE_SUFFIXES, read_subtitles, read_text
from dits_adapter.sources._titles import description_of, title_of
from dits_adapter.sources.base import Findings
from dits_adapter.video._container_texts import ContainerTexts

__all__ = ["Collected"]


class Collected:
    """Texts of one video.

    Args:
        path: the video, for messages.
        duration: its seconds; None where they are not known.
        segment_seconds: length of the segments that texts are of; None for spans as sentences have them.
        wants: returns whether subtitles in a language are taken.

    Attributes:
        findings: the texts, and what was left out.
    """

    def __init__(
        self, path: str, duration: float | None, segment_seconds: float | None, wants: Callable[[str], bool]
    ) -> None:
        self.findings = Findings()
        self._path, self._duration, self._wants = path, duration, wants
        self._division = Division(duration, segment_seconds)

    def add_container(self, contained: ContainerTexts) -> None:
        """Add the tags, chapters and subtitles of the video file."""
        self.add(texts_of_fields(dict(contained.tags)))
        self._add_spans("chapter", (Cue(*chapter) for chapter in contained.chapters))
        for stream in contained.subtitles:
            language = primary_language(stream.language)
            if not self._is_wanted(language):
                continue
            if stream.texts is None:
                self.findings.left_out[f"is a stream of subtitles that are pictures ({stream.codec})"] += 1
            elif stream.texts:
                where = f"the subtitles in it{f' ({language})' if language else ''}"
                self._add_cues(f"{self._path}: {where}", [Cue(*text) for text in stream.texts])

    def add_sidecar(self, sidecar: Sidecar) -> None:
        """Add the texts of a file beside the video; one that cannot be read is named in `findings.failed`."""
        try:
            if sidecar.suffix in SUBTITLE_SUFFIXES:
                if self._is_wanted(sidecar.language):
                    self._add_cues(sidecar.path, read_subtitles(sidecar.path))
            elif sidecar.suffix == ".txt":
                self.add(("caption", text) for text in read_captions(sidecar.path))
            elif sidecar.suffix == ".description":
                self.add(("description", text) for text in [description_of(read_text(sidecar.path))] if text)
            else:
                self._add_info(sidecar)
        except UserFileError as error:
            self.findings.failed[sidecar.path] = error.reason

    def add(self, texts: Iterable[tuple[Kind, str]]) -> None:
        """Add texts of the whole video, each with its kind."""
        self.findings.texts += [of_kind(kind, text) for kind, text in texts]

    def _add_info(self, sidecar: Sidecar) -> None:
        info = read_info(sidecar.path)
        self.add(info.texts)
        self._add_spans("chapter", info.chapters)
        self._add_spans("caption", info.captions)
        if info.cues and self._is_wanted(sidecar.language):
            self._add_cues(sidecar.path, info.cues)

    def _add_spans(self, kind: Kind, cues: Iterable[Cue]) -> None:
        """Add texts that are of spans as they stand."""
        left_out = self.findings.left_out
        for cue in cues_within(cues, self._duration, left_out):
            text = title_of(cue.text)
            if text is None or not cue.end > cue.start:
                left_out["says nothing, such as Chapter 1"] += 1
            else:
                whole = self._division.whole
                self.findings.texts.append(of_kind(kind, text, *((None, None) if whole else (cue.start, cue.end))))

    def _add_cues(self, where: str, cues: list[Cue]) -> None:
        """Add subtitles, joined to texts; where most lie outside of the video, they are of another one."""
        outside = Counter[str]()
        inside = cues_within(cues, self._duration, outside)
        if 2 * outside.total() > len(cues):
            self.findings.failed[where] = (
                f"{outside.total()} of {len(cues)} times lie outside of the video, which lasts "
                f"{self._duration:.1f} s: they are of another one, or of another cut of it"
            )
            return
        left_out = self.findings.left_out
        left_out += outside
        for passage in join_cues(clean_cues(inside, left_out), self._division, left_out):
            self.findings.texts.append(of_kind("subtitles", passage.text, passage.start, passage.end))

    def _is_wanted(self, language: str) -> bool:
        if self._wants(language):
            return True
        self.findings.left_out[f"is a file or stream in another language ({language})"] += 1
        return False
