"""Words of a text as filters compare them: the same in every store."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["words_of"]

_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
"""A run of letters and digits; of Chinese and Japanese, which leave no blanks between words, each character."""


def words_of(text: str) -> list[str]:
    """Return the distinct words of a text, without case and however its letters are composed.

    Full-width letters, ligatures and decomposed accents, as file names of some systems have them, are the letters
    that they look like (NFKC). Words end at everything that is neither letter nor digit, underscores included.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return list(dict.fromkeys(_WORD.findall(folded)))
