"""Files of subtitles, and other texts from anywhere, in whatever encoding they are."""

from __future__ import annotations

import codecs
import os
import stat
import warnings
from os import PathLike
from pathlib import Path

from dits_adapter._user_files import UserFileError
from dits_adapter.sources._cues import Cue

__all__ = ["SUBTITLE_SUFFIXES", "read_subtitles", "read_text"]

SUBTITLE_SUFFIXES = frozenset({".srt", ".vtt", ".ass", ".ssa"})

_LARGEST = 2**24
"""Bytes that a file may have: ten times the subtitles of a day."""

_LOOKED_AT = 2**16
"""Bytes by which an encoding is told; an even number."""

_LONGEST_LINE = 10_000

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, with whose mark it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str | PathLike[str]) -> str:
    """Read a text whose encoding nobody says; lines end with LF.

    Raises:
        UserFileError: it cannot be read, is too large, empty, or no text in any encoding.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise UserFileError(path, None, "is a pipe, not a file")
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserFileError(path, None, f"cannot be read ({error.strerror or error})") from None
    if len(data) > _LARGEST:
        raise UserFileError(path, None, f"is larger than {_LARGEST:,} bytes; no such text describes one video")
    text = _decoded(data)
    if text is None or "\0" in text:
        raise UserFileError(path, None, "is no text in an encoding that can be told; save it as UTF-8")
    if not text.strip():
        raise UserFileError(path, None, "is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeError:
                return None
    if (
        b"\0" in data[:_LOOKED_AT]
    ):  # UTF-16 without a mark, in a script of which half the bytes are zero; or no text
        encoding = "utf-16-le" if data[1:_LOOKED_AT:2].count(0) > data[:_LOOKED_AT:2].count(0) else "utf-16-be"
    else:
        encoding = _guessed(data)
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None


def _guessed(data: bytes) -> str:
    """Return the encoding of a text of bytes: UTF-8 if it can be, else as its first lines look."""
    try:
        data.decode()
    except UnicodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data[: data.rfind(b"\n", 0, _LOOKED_AT) + 1] or data[:_LOOKED_AT]).best()
        return "ascii" if best is None else best.encoding  # as ASCII it is refused
    return "utf-8"


def read_subtitles(path: str | PathLike[str]) -> list[Cue]:
    """Read a file of subtitles in SubRip, WebVTT or SubStation Alpha, by its content.

    Raises:
        UserFileError: as `read_text`, or it holds no subtitles.
    """
    import pysubs2

    text = read_text(path)
    if max(map(len, text.split("\n"))) > _LONGEST_LINE:  # the reader's patterns are slow on such
        raise UserFileError(path, None, f"has a line of more than {_LONGEST_LINE:,} characters; is no subtitles")
    kind = _format(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about times, layers and margins that are replaced
            read = pysubs2.SSAFile.from_string(_without_blank_runs(text), format_=kind, keep_html_tags=True)
        cues = [Cue(event.start / 1000, event.end / 1000, event.plaintext) for event in read.get_text_events()]
    except (pysubs2.Pysubs2Error, ValueError, ArithmeticError, LookupError) as error:
        raise UserFileError(path, None, f"is no {Path(path).suffix} that can be read ({error})") from None
    if not any(cue.text.strip() for cue in cues):
        raise UserFileError(path, None, "holds no subtitles")
    if kind == "ass":
        return cues
    # After a blank line comes no subtitle, but a NOTE or the name of the next one.
    return [cue._replace(text=cue.text.strip("\n").split("\n\n")[0]) for cue in cues]


def _format(text: str) -> str:
    if text.lstrip().startswith("WEBVTT"):
        return "vtt"
    return "ass" if "[Script Info]" in text[:2000] or "[Events]" in text else "srt"


def _without_blank_runs(text: str) -> str:
    """Return a text with one blank line in the place of many."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines)
