"""Texts: the rule for what can be embedded as one, and the cleaning that comes before a tokenizer.

A text is a string of 1 to `MAX_CHARACTERS` characters that can be written as UTF-8, not blank and without NUL.
Other control characters pass: old captions have some for an apostrophe, every tokenizer takes them, and cleaning
mends or removes them.
"""

from __future__ import annotations

import html
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeAlias, get_args

from dits_adapter._extras import name_missing_extra
from dits_adapter.errors import InputError

__all__ = [
    "MAX_CHARACTERS",
    "TextCleaning",
    "check_texts",
    "clean_texts",
    "require_cleaning",
    "shown",
    "text_fault",
    "text_name",
    "warn_if_cut",
]

TextCleaning: TypeAlias = Literal["none", "clip"]
"""Cleaning of texts before they are tokenized: `none`, or `clip`, that of OpenAI's CLIP and of open_clip."""

MAX_CHARACTERS = 100_000
"""Characters of the longest text: more than encoders read, and a tenth of a second of tokenizing."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}
_SHOWN = 60


class _TokenCounter(Protocol):
    """Part of encoders and backends that knows how much of a text is read."""

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read."""

    def count_tokens(self, texts: list[str], /) -> list[int]:
        """Count the tokens of whole texts, start and end included."""


def shown(text: str) -> str:
    """Return the beginning of a text for a message, escaped where it cannot be printed."""
    return repr(text[:_SHOWN]) + "…" * (len(text) > _SHOWN)


def text_fault(text: object) -> str | None:
    """Return the reason, a clause, why a value is no text that can be embedded; None for one that can.

    >>> text_fault("a dog"), text_fault(3)
    (None, 'is of type int; only strings are accepted')
    """
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}; only strings are accepted"
    if len(text) > MAX_CHARACTERS:
        return (
            f"has {len(text):,} characters ({shown(text)}); at most {MAX_CHARACTERS:,} are accepted. Describe the "
            "video in a sentence or two"
        )
    if half := _SURROGATE.search(text):
        return (
            f"holds {half[0]!r} ({_around(text, half.start())}), which is no character but a byte of another "
            "encoding than UTF-8, as from a terminal or file in Latin-1, or half of an emoji that was cut; give "
            "whole characters in UTF-8"
        )
    if "\0" in text:
        return f"holds a NUL ({_around(text, text.index(chr(0)))}); remove it"
    if all(unicodedata.category(character) in _UNSEEN for character in text):
        return f"is empty or blank ({shown(text)}); describe what happens in the video"
    return None


def _around(text: str, place: int) -> str:
    start = max(0, place - _SHOWN // 2)
    return "…" * (start > 0) + shown(text[start:])


def check_texts(texts: str | Iterable[str]) -> list[str]:
    """Return texts as a list once each of them is known to be one.

    Raises:
        InputError: a value that is no text, by its row, counted from 0; it says what is accepted.
    """
    return _checked(texts, None)


def text_name(row: int, texts: int) -> str:
    """Return the name of one of so many texts for messages: by its row, counted from 0, if there are several."""
    return "the text" if texts == 1 else f"text {row}"


def clean_texts(texts: str | Iterable[str], cleaning: TextCleaning = "clip") -> list[str]:
    """Clean texts as OpenAI's CLIP and open_clip do before they tokenize.

    Broken Unicode, curly quotes, ligatures and letters of full width become plain ones (`ftfy.fix_text`), entities
    of HTML their characters, runs of white space one blank; letters become small. Source: `basic_clean` and
    `whitespace_clean` of clip/simple_tokenizer.py in OpenAI's code.

    Args:
        texts: the texts, or one.
        cleaning: `clip`, or `none` for the texts as they are.

    Raises:
        InputError: a value that is no text, or of which nothing is left, by its row.
        MissingExtraError: ftfy is not installed (extra: cleaning).

    >>> clean_texts(["A dog\u2019s  \ufb01rst &amp; last walk"])
    ["a dog's first & last walk"]
    """
    return _checked(texts, _cleaner(cleaning))


def _checked(texts: str | Iterable[str], clean: Callable[[str], str] | None) -> list[str]:
    alone = isinstance(texts, str | bytes) or not isinstance(texts, Iterable)
    rows: list[str] = [texts] if alone else list(texts)  # type: ignore[list-item]
    for row, text in enumerate(rows):
        name = text_name(row, len(rows))
        if fault := text_fault(text):
            raise InputError(f"{name} {fault}.")
        if clean is not None:
            rows[row] = clean(text)
            if fault := text_fault(rows[row]):
                raise InputError(f"{name} ({shown(text)}), once cleaned, {fault}.")
    return rows


def require_cleaning(cleaning: TextCleaning) -> None:
    """Refuse a cleaning that is unknown or cannot be done here; called before the work.

    Raises:
        InputError: it is unknown.
        MissingExtraError: ftfy is not installed.
    """
    _cleaner(cleaning)


def _cleaner(cleaning: TextCleaning) -> Callable[[str], str] | None:
    if cleaning not in get_args(TextCleaning):
        raise InputError(f'text_cleaning is {cleaning!r}; it is "none" or "clip".')
    if cleaning == "none":
        return None
    with name_missing_extra('text_cleaning="clip"'):
        from ftfy import fix_text

    return lambda text: " ".join(html.unescape(html.unescape(fix_text(text))).split()).lower()


def warn_if_cut(texts: Sequence[str], encoder: _TokenCounter, *, stacklevel: int) -> bool:
    """Warn of the longest text where an encoder does not read all of it; return whether one was cut.

    Args:
        texts: the texts.
        encoder: reads the first `max_tokens` tokens of each.
        stacklevel: as that of `warnings.warn`, counted from the caller.
    """
    limit = encoder.max_tokens
    long = [text for text in texts if len(text.encode()) > limit - 2]  # a token has at least one byte
    counts = encoder.count_tokens(long) if long else [0]
    most = max(counts)
    if most <= limit:
        return False
    warnings.warn(
        f"a text has {most} tokens; the encoder reads the first {limit} and ignores the rest (reported once): "
        f"{shown(long[counts.index(most)])}",
        stacklevel=stacklevel + 1,
    )
    return True
