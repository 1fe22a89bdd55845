"""JSON and plain text beside a video: what downloaders and people write there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from dits_adapter._user_files import UserFileError, parse_json
from dits_adapter.sources._cues import Cue
from dits_adapter.sources._kinds import Kind
from dits_adapter.sources._subtitles import read_text
from dits_adapter.sources._titles import description_of, title_of

__all__ = ["Info", "read_captions", "read_info", "texts_of_fields"]

_MOST_CAPTIONS = 100
"""Lines of a .txt; one with more is a transcript or a list."""

_MOST_TAGS = 10

_STARTS, _ENDS = ("start", "start_time"), ("end", "end_time")

_LATEST = 1e9
"""Bound of seconds: thirty years."""

_CAPTIONS = ("caption", "captions", "text", "texts", "sentence", "sentences", "query", "queries")


class Info(NamedTuple):
    """Texts of a JSON file.

    Attributes:
        texts: texts of the whole video, each with its kind.
        chapters: titles of chapters.
        captions: captions of spans.
        cues: pieces of a transcript.
    """

    texts: list[tuple[Kind, str]]
    chapters: list[Cue]
    captions: list[Cue]
    cues: list[Cue]


def read_captions(path: str) -> list[str]:
    """Read a text file with a caption a line.

    Raises:
        UserFileError: as `read_text`, or it has too many lines.
    """
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if len(lines) > _MOST_CAPTIONS:
        raise UserFileError(
            path, None, f"has {len(lines):,} lines; of a caption a line, a video has at most {_MOST_CAPTIONS}"
        )
    return lines


def read_info(path: str) -> Info:
    """Read JSON: an object such as yt-dlp's .info.json, a transcript with `segments`, or a list of captions.

    Raises:
        UserFileError: as `read_text`; it is no JSON, or has nothing that is known here.
    """
    value = parse_json(read_text(path), path)
    info = Info([], [], [], [])
    if isinstance(value, dict):
        info.texts.extend(texts_of_fields(value))
        info.chapters.extend(_timed(value.get("chapters"), ("title",)))
        info.cues.extend(_timed(value.get("segments"), ("text",)))
        captions: Any = [item for key in _CAPTIONS for item in _listed(value.get(key))] if not info.cues else []
    else:
        captions = _listed(value)
    info.captions.extend(_timed(captions, ("text", "caption", "sentence")))
    info.texts.extend(("caption", text) for text in map(_said, captions) if text)
    if not any(info):
        raise UserFileError(
            path, None, "has no title, description, tags, chapters, captions or segments that say something"
        )
    return info


def texts_of_fields(fields: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    """Find title, description and tags among named values, such as those of a file's header."""
    texts = {key: value for key, value in fields.items() if isinstance(value, str)}
    if title := next(filter(None, (title_of(texts.get(key, "")) for key in ("title", "fulltitle"))), None):
        yield "title", title
    for key in ("description", "synopsis", "comment"):
        if said := description_of(texts.get(key, "")):
            yield "description", said
    tags = fields.get("tags", fields.get("keywords"))
    if isinstance(tags, str):
        tags = tags.replace(";", ",").split(",")
    words = [tag.strip() for tag in _listed(tags) if isinstance(tag, str) and title_of(tag)]
    if words:
        yield "tags", ", ".join(words[:_MOST_TAGS])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _said(item: Any) -> str | None:
    """Return a caption of the whole video: a text, or an object with one and without times."""
    if isinstance(item, dict) and _span(item) is None:
        item = next((item[key] for key in ("text", "caption", "sentence") if key in item), None)
    return item if isinstance(item, str) and item.strip() else None


def _timed(items: Any, keys: tuple[str, ...]) -> Iterator[Cue]:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and (span := _span(item)) is not None:
            text = next((item[key] for key in keys if isinstance(item.get(key), str)), "")
            if text.strip():
                yield Cue(*span, text)


def _span(item: dict[str, Any]) -> tuple[float, float] | None:
    """Return the seconds of an object with a start and an end; None where it has none that a clock can show."""
    bounds = [next((item[key] for key in keys if key in item), None) for keys in (_STARTS, _ENDS)]
    seconds = [float(n) for n in bounds if isinstance(n, int | float) and abs(n) < _LATEST]
    return (seconds[0], seconds[1]) if len(seconds) == 2 else None
