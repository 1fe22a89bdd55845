"""Languages of texts, by the tags that names of files and containers have."""

from __future__ import annotations

__all__ = ["primary_language"]

_NO_LANGUAGE = frozenset({"mis", "mul", "und", "zxx"})

_ISO_639_1 = {
    "ara": "ar",
    "bul": "bg",
    "cat": "ca",
    "ces": "cs",
    "chi": "zh",
    "cmn": "zh",
    "cze": "cs",
    "dan": "da",
    "deu": "de",
    "dut": "nl",
    "ell": "el",
    "eng": "en",
    "est": "et",
    "fas": "fa",
    "fin": "fi",
    "fra": "fr",
    "fre": "fr",
    "ger": "de",
    "gre": "el",
    "heb": "he",
    "hin": "hi",
    "hrv": "hr",
    "hun": "hu",
    "ind": "id",
    "ita": "it",
    "jpn": "ja",
    "kor": "ko",
    "lav": "lv",
    "lit": "lt",
    "may": "ms",
    "msa": "ms",
    "nld": "nl",
    "nob": "nb",
    "nor": "no",
    "per": "fa",
    "pol": "pl",
    "por": "pt",
    "ron": "ro",
    "rum": "ro",
    "rus": "ru",
    "slk": "sk",
    "slo": "sk",
    "slv": "sl",
    "spa": "es",
    "srp": "sr",
    "swe": "sv",
    "tam": "ta",
    "tel": "te",
    "tha": "th",
    "tur": "tr",
    "ukr": "uk",
    "urd": "ur",
    "vie": "vi",
    "zho": "zh",
}
"""Codes of three letters, as containers have them, and those of two, as names of files do."""


def primary_language(tag: str) -> str:
    """Return the language of a tag, in two letters where it has such a code; empty where the tag names none.

    >>> [primary_language(tag) for tag in ("en-US", "ger", "pt_BR", "und", "")]
    ['en', 'de', 'pt', '', '']
    """
    language = tag.strip().lower().replace("_", "-").partition("-")[0]
    return "" if language in _NO_LANGUAGE else _ISO_639_1.get(language, language)
