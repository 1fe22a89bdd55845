"""Filters of machine-made texts."""

from __future__ import annotations

import re
import zlib

__all__ = ["repeats"]

_LOOP = 2.4
"""Rate of compression above which a text repeats itself: Whisper's own limit."""

_VARIETY = 4
"""Times that each word of a text comes, on average, from where it repeats itself."""


def repeats(text: str) -> bool:
    """Tell whether a text says the same again and again, as models do that have nothing to say.

    >>> repeats("you you you you"), repeats("a dog runs after another dog")
    (True, False)
    """
    data, words = text.encode(), re.findall(r"\w+", text.casefold())
    return len(words) >= _VARIETY * len(set(words)) > 0 or len(data) / len(zlib.compress(data)) > _LOOP
