"""Texts that a video file holds itself: tags, chapters and streams of subtitles."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, NamedTuple

from dits_adapter.errors import VideoError
from dits_adapter.video._index import open_video
from dits_adapter.video._packages import load_package
from dits_adapter.video.decode import naming_file
from dits_adapter.video.limits import DecodeLimits

__all__ = ["ContainerTexts", "Subtitles", "TimedText", "read_container_texts"]

_TEXT_CODECS = frozenset({"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"})

_DEFAULT_LIMITS = DecodeLimits()


class TimedText(NamedTuple):
    """Text with its span, in seconds from the beginning of the video."""

    start: float
    end: float
    text: str


@dataclass
class Subtitles:
    """Stream of subtitles.

    Attributes:
        codec: its codec, as FFmpeg names it.
        language: its language as the file says, `eng` or `en`; empty where it does not say.
        texts: the subtitles in the order of the file, with ASS markup; None where they are pictures.
    """

    codec: str
    language: str
    texts: list[TimedText] | None


@dataclass
class ContainerTexts:
    """Texts of one video file.

    Attributes:
        duration: seconds that the video lasts by its header; None where that says nothing.
        tags: tags of the file by their names, lower case: `title`, `comment`.
        chapters: titles of the chapters that have one.
        subtitles: streams of subtitles.
    """

    duration: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    chapters: list[TimedText] = field(default_factory=list)
    subtitles: list[Subtitles] = field(default_factory=list)


def read_container_texts(
    path: str | PathLike[str], limits: DecodeLimits = _DEFAULT_LIMITS, *, subtitles: bool = True
) -> ContainerTexts:
    """Read the texts of a video file: its header and, where it has subtitles, its packets; no frame is decoded.

    Args:
        path: the file.
        limits: what the file may cost.
        subtitles: read the streams of subtitles.

    Raises:
        VideoError: the file is no readable video, or goes beyond the limits.
    """
    name = fspath(path)
    with naming_file(name):
        size = os.path.getsize(name)
        seconds = limits.seconds_for(size)
        with open_video(name, seconds) as (container, _):
            av = load_package("pyav")
            duration = container.duration / av.time_base if container.duration else 0.0
            start = (container.start_time or 0) / av.time_base
            found = ContainerTexts(duration=duration if 0 < duration <= size else None)
            found.tags = {key.lower(): value for key, value in container.metadata.items()}
            found.chapters = list(_chapters(container, start))
            streams = {stream.index: _described(stream) for stream in container.streams.subtitles}
            found.subtitles = list(streams.values())
            wanted = [container.streams[n] for n, stream in streams.items() if stream.texts is not None]
            if subtitles and wanted:
                for number, text in _subtitles(name, container, wanted, start, seconds):
                    streams[number].texts.append(text)  # type: ignore[union-attr]
    return found


def _chapters(container: Any, start: float) -> Iterator[TimedText]:
    for chapter in container.chapters():
        title = chapter["metadata"].get("title", "")
        unit = float(chapter["time_base"] or 0)
        if title.strip() and unit:
            yield TimedText(chapter["start"] * unit - start, chapter["end"] * unit - start, title)


def _described(stream: Any) -> Subtitles:
    codec = "" if stream.codec_context is None else stream.codec_context.name
    return Subtitles(codec, stream.metadata.get("language", ""), [] if codec in _TEXT_CODECS else None)


def _subtitles(
    path: str, container: Any, streams: list[Any], start: float, seconds: float
) -> Iterator[tuple[int, TimedText]]:
    """Read the subtitles of streams as they lie in the file, each with the number of its stream."""
    deadline = time.monotonic() + seconds
    for packet in container.demux(streams):
        if time.monotonic() > deadline:
            raise VideoError(path, f"takes more than {seconds:.0f} s to read its subtitles")
        if packet.pts is None or not packet.size:
            continue
        unit = float(packet.time_base)
        begin = packet.pts * unit - start
        for rect in packet.decode():
            text = getattr(rect, "dialogue", b"").decode("utf-8", "replace")
            if text.strip():
                yield packet.stream.index, TimedText(begin, begin + (packet.duration or 0) * unit, text)
