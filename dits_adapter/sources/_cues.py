"""Cues, which are pieces of timed text: cleaned of what nobody searches for, and joined to texts with spans.

Subtitles and speech come in pieces of a line or two. A piece is too short to describe a span, and its time too
short to take frames from; so pieces are joined up to the end of a sentence.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dits_adapter.sources._titles import word_count
from dits_adapter.video._frames import count_segments

__all__ = ["SHORTEST_WHOLE", "Cue", "Division", "Passage", "clean_cues", "cues_within", "join_cues"]

SHORTEST_WHOLE = 20.0
"""Seconds up to which a video is not divided: its timed texts are texts of the whole."""

_SHORTEST, _LONGEST, _PAUSE = 5.0, 20.0, 2.0
"""Seconds that a joined text lasts at least, if the pause after it is no longer than the third, and at most."""

_CHARACTERS = 300
"""Characters of a joined text: about what CLIP reads, 77 tokens."""

_LEAST_WORDS = 3

_LONGEST_CUE = 2000

_UNSEEN = dict.fromkeys([0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
"""Marks of writing direction, and blanks of no width."""

_MARKUP = re.compile(r"<[^<>]{0,200}>|\{[^{}]{0,200}\}")
_SOUND = re.compile(
    r"\[[^][]{0,200}\]|\([^()]{0,200}\)|（[^（）]{0,200}）|【[^【】]{0,200}】|\*[^*\s][^*]{0,80}\*"
)
_SPEAKER = re.compile(r"^[-–—\s]*(?:>>+\s*)?(?:[A-Z][A-Z0-9 .'’-]{0,30}:\s+)?")
_SUNG = re.compile("[♩♪♫♬🎵🎶]|^#.*#$")
_CREDIT = re.compile(
    r"(?i)https?://|\bwww\.|©|\b(?:subtitles?|subtitled|captions?|captioned|captioning|synced|synch?roni[sz]ed|"
    r"translated|translation|transcript|transcribed|corrected|ripped|encoded) by\b|opensubtitles|amara\.org"
)
_ENDS = tuple('.?!…。？！"”»')


class Cue(NamedTuple):
    """Piece of timed text.

    Attributes:
        start, end: seconds from the beginning of the video.
        text: the piece; lines as they were shown.
        confidence: how sure the piece is to be what was said, at most 1.
    """

    start: float
    end: float
    text: str
    confidence: float = 1.0


class Passage(NamedTuple):
    """Text that was joined of pieces.

    Attributes:
        text: the text.
        start, end: its span in seconds; None where it is of the whole video.
        confidence: mean of the pieces', by their length.
    """

    text: str
    start: float | None
    end: float | None
    confidence: float


def clean_cues(cues: Iterable[Cue], left_out: Counter[str]) -> list[Cue]:
    """Sort pieces and take away markup, names of speakers, sounds, songs, credits and lines shown twice.

    Args:
        cues: the pieces, in any order.
        left_out: counts the pieces of which nothing is left, by reason.
    """
    kept: list[Cue] = []
    shown: list[str] = []
    until = 0.0
    for cue in sorted(cues):
        if not cue.end > cue.start:
            left_out["has no length"] += 1
            continue
        if len(cue.text) > _LONGEST_CUE:
            left_out[f"has more than {_LONGEST_CUE:,} characters for one moment"] += 1
            continue
        lines = [" ".join(line.split()) for line in _plain(cue.text).split("\n")]
        lines = [line for line in lines if line]
        # Captions that roll up show each line twice: as the new one, and above the next one.
        repeated = shown if cue.start - until < 0.5 else []
        new = [line for line in lines if line not in repeated]
        shown, until = lines, max(until, cue.end)
        text = " ".join(filter(None, map(_spoken, new)))
        if text:
            kept.append(cue._replace(text=text))
        elif new:
            left_out["is a sound, a song or a credit"] += 1
    return kept


def _plain(text: str) -> str:
    lines = text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ").translate(_UNSEEN)
    return html.unescape(_MARKUP.sub("", lines))


def _spoken(line: str) -> str:
    """Return what is said in a line; nothing where it is sung, or a credit."""
    if _SUNG.search(line) or _CREDIT.search(line):
        return ""
    said = _SPEAKER.sub("", _SOUND.sub(" ", line)).strip()
    return said if word_count(said) else ""


def cues_within(cues: Iterable[Cue], duration: float | None, left_out: Counter[str]) -> list[Cue]:
    """Return the part of each piece that lies within the video; those that lie outside are counted.

    Args:
        cues: the pieces.
        duration: seconds of the video; None where that is not known, and nothing lies after its end.
        left_out: counts pieces by reason.
    """
    kept = []
    end = float("inf") if duration is None else duration
    for cue in cues:
        if cue.start >= end or cue.end <= 0:
            left_out["lies outside of the video"] += 1
        else:
            kept.append(cue._replace(start=max(cue.start, 0.0), end=min(cue.end, end)))
    return kept


class Division:
    """Division of a video into the spans that texts are of.

    Args:
        duration: seconds of the video; None where that is not known.
        segment_seconds: length of the segments that ingestion cuts; None for spans as the sentences have them.

    Attributes:
        whole: True where the video is not divided: it is one segment, or no longer than `SHORTEST_WHOLE`.
        segmented: True where the spans are segments.
    """

    def __init__(self, duration: float | None, segment_seconds: float | None) -> None:
        self._duration, self._seconds = duration, segment_seconds or 0.0
        self.segmented = segment_seconds is not None
        self._last = (
            None if duration is None or segment_seconds is None else count_segments(duration, segment_seconds) - 1
        )
        self.whole = self._last == 0 if self.segmented else duration is not None and duration <= SHORTEST_WHOLE

    def number(self, cue: Cue) -> int:
        """Return the number of the segment in which the middle of a piece lies."""
        number = int((cue.start + cue.end) / 2 / self._seconds)
        return number if self._last is None else min(number, self._last)

    def span(self, cues: list[Cue]) -> tuple[float | None, float | None]:
        """Return the span that a text made of these pieces is of; none where it is of the whole video."""
        if self.whole:
            return None, None
        if not self.segmented:
            return cues[0].start, max(cue.end for cue in cues)
        number = self.number(cues[0])
        end = (number + 1) * self._seconds if self._duration is None or number != self._last else self._duration
        return number * self._seconds, end


def join_cues(cues: Iterable[Cue], division: Division, left_out: Counter[str]) -> Iterator[Passage]:
    """Join pieces to texts: of 5 to 20 s where sentences and pauses allow, of each segment, or of the whole video.

    Args:
        cues: clean pieces within the video, by their start.
        division: the spans.
        left_out: counts the texts that are too short to describe anything.
    """
    joined: list[Cue] = []
    for cue in [*cues, None]:
        if joined and (cue is None or _parted(joined, cue, division)):
            text = " ".join(piece.text for piece in joined)
            if word_count(text) < _LEAST_WORDS:
                left_out[f"has fewer than {_LEAST_WORDS} words"] += 1
            else:
                start, end = division.span(joined)
                yield Passage(text, start, end, _mean_confidence(joined))
            joined = []
        if cue is not None:
            joined.append(cue)


def _parted(joined: list[Cue], cue: Cue, division: Division) -> bool:
    """Return whether a text ends before this piece."""
    if sum(len(piece.text) + 1 for piece in joined) + len(cue.text) > _CHARACTERS:
        return True
    if division.whole:
        return False
    if division.segmented:
        return division.number(joined[0]) != division.number(cue)
    begun, end = joined[0].start, max(piece.end for piece in joined)
    sentence = joined[-1].text.endswith(_ENDS)
    return cue.start - end > _PAUSE or cue.end - begun > _LONGEST or (sentence and end - begun >= _SHORTEST)


def _mean_confidence(cues: list[Cue]) -> float:
    seconds = [cue.end - cue.start for cue in cues]
    return sum(n * cue.confidence for n, cue in zip(seconds, cues, strict=True)) / sum(seconds)
