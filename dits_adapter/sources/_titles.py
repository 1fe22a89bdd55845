"""Titles: which of them say something, and what names of files say."""

from __future__ import annotations

import re

from dits_adapter.video._formats import VIDEO_SUFFIXES

__all__ = ["description_of", "name_words", "title_of", "word_count"]

_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+")
"""Word, or character of a script that is written without blanks."""

_DEVICE = re.compile(
    r"(?i)[\W_\d]*(?:img|dsc[nf]?|mvi|vid|mov|gopr|g[hxop]|dji|pxl|p|cimg|sam|trim|video|movie|film|clip|scene|"
    r"sequence|seq|untitled|unbenannt|untitled project|new project|final|render|export|output|out|test|track|"
    r"chapter|kapitel|chapitre|part|teil|disc|cd|title|main|copy|screen ?recording|whatsapp video|camera|cam|"
    r"recording|default|unknown|none|null|n/?a)(?:[\W_\d]|copy|of|at|am|pm)*"
)
"""Title that a device or a program gave: IMG_2041, Untitled, Chapter 3, Screen Recording 2024-01-01 at 10.20."""

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BETWEEN = re.compile(r"[\s_.+\-]+")
_IN_BRACKETS = re.compile(r"\[[^][]*\]|\([^()]*\)")
_ADDRESS = re.compile(
    r"(?i)https?://|www\.|@\w|[#@]\S+\s*$|\b(?:subscribe|follow (?:me|us)|instagram|patreon|e-?mail)\b"
    r"|\b(?:created|downloaded|encoded|generated|recorded|uploaded) (?:by|from|using|with)\b"
)
"""Part of a line that is no description: a link, a request, a note of a program."""

_PLAIN = re.compile(r"[^\W\d_]{2,}")

_LONGEST_DESCRIPTION = 200
"""Characters of a description that are taken: what a text encoder reads of it."""


def word_count(text: str) -> int:
    """Count the words of a text; numbers are none.

    >>> word_count("12 big dogs"), word_count("犬が走る")
    (2, 4)
    """
    return len(_WORD.findall(text))


def title_of(text: str) -> str | None:
    """Return a title as it can be searched for; None where a device or a program gave it.

    >>> [title_of(text) for text in ("Sunset", "IMG_2041", "dog_on_beach.mp4", "20240101_103000", "Untitled 3")]
    ['Sunset', None, 'dog on beach', None, None]
    """
    stem, dot, suffix = text.strip().rpartition(".")
    if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES:
        return name_words(stem)
    title = " ".join(text.split())
    return title if word_count(title) and not _DEVICE.fullmatch(title) and not _ADDRESS.search(title) else None


def name_words(stem: str) -> str | None:
    """Return the words of a file's name without its suffix; None where fewer than two are there.

    >>> name_words("v_PlayingGuitar_g01_c02"), name_words("dQw4w9WgXcQ"), name_words("holiday")
    ('Playing Guitar', None, None)
    """
    parts = _BETWEEN.split(_CAMEL.sub(" ", _IN_BRACKETS.sub(" ", stem)))
    words = [part for part in parts if _PLAIN.fullmatch(part) or part.lower() in ("a", "i")]
    name = " ".join(words)
    enough = sum(len(word) > 1 for word in words) >= 2 or word_count(name) >= 4  # the latter: without blanks
    mixed = len(_BETWEEN.split(stem)) == 1 and any(map(str.isdigit, stem))  # an id such as dQw4w9WgXcQ
    return name if enough and not mixed and not _DEVICE.fullmatch(name) else None


def description_of(text: str) -> str | None:
    """Return the first line of a description that is about the video; None where all is links and requests.

    >>> description_of("www.example.org\\n\\nA dog runs along the beach. Then it swims.")
    'A dog runs along the beach. Then it swims.'
    """
    for line in text.splitlines():
        line = " ".join(line.split())
        if word_count(line) >= 3 and not _ADDRESS.search(line):
            if len(line) <= _LONGEST_DESCRIPTION:
                return line
            cut = line[:_LONGEST_DESCRIPTION]
            sentence = max(cut.rfind(mark) for mark in (". ", "! ", "? ", "。"))
            return cut[: sentence + 1] if sentence > 0 else cut[: cut.rfind(" ")] if " " in cut else cut
    return None
