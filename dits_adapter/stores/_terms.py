"""Terms of a text as BM25 counts them: stems of words, and pairs of letters of scripts without blanks."""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import snowballstemmer  # type: ignore[import-untyped]

from dits_adapter.errors import InputError

__all__ = ["check_language", "term_id", "terms_of"]

_STEMMING = threading.Lock()
"""Stemmers keep the word that they are at."""

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Japanese syllables
    (0x3400, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Code points of scripts that leave no blanks between words."""


def check_language(language: str | None) -> None:
    """Refuse a language without a stemmer; None, which leaves words as they are, is none.

    Raises:
        InputError: naming it and those that there are.
    """
    if language is not None and language not in snowballstemmer.algorithms():
        known = ", ".join(sorted(snowballstemmer.algorithms()))
        raise InputError(f"language is {language!r}; it is none, or one of {known}.")


def terms_of(text: str, language: str | None) -> list[str]:
    """Return the terms of a text, in their order, each as often as it occurs.

    Case, width and the composition of letters do not matter (NFKC). Runs of Chinese, Japanese, Thai and other
    letters without blanks between words become their overlapping pairs, as search engines index them.

    Args:
        text: any text.
        language: language whose endings are cut off by its Snowball stemmer; None for none.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    terms: list[str] = []
    for kind, run in groupby(folded, _kind):
        word = "".join(run)
        if kind == "word":
            terms.append(word if language is None else _stem(word, language))
        elif kind == "unspaced":
            terms += [word] if len(word) == 1 else _pairs(word)
    return terms


def term_id(term: str) -> int:
    """Return the number that stands for a term, the same everywhere: 32 bits of its hash."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=4).digest(), "little")


def _pairs(word: str) -> Iterator[str]:
    return (word[at : at + 2] for at in range(len(word) - 1))


@lru_cache(maxsize=4096)
def _kind(letter: str) -> str | None:
    """Return the kind of terms that a letter, mark or digit belongs to; None between terms."""
    if any(first <= ord(letter) <= last for first, last in _UNSPACED):
        return "unspaced" if unicodedata.category(letter)[0] in "LMN" else None
    return "word" if unicodedata.category(letter)[0] in "LMN" else None


@lru_cache(maxsize=65536)
def _stem(word: str, language: str) -> str:
    with _STEMMING:
        return str(_stemmer(language).stemWord(word))


@lru_cache
def _stemmer(language: str) -> Any:
    return snowballstemmer.stemmer(language)
