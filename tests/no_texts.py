"""Values that are no texts, and texts that cleaning changes, for the tests of every way in."""

from __future__ import annotations

NO_TEXTS = {
    "a byte of Latin-1": (b"a gr\xe4y dog".decode("utf-8", "surrogateescape"), r"holds '\\udce4'"),
    "half of an emoji": (
        "a dog 🐕".encode("utf-16-le")[:-2].decode("utf-16-le", "surrogatepass"),
        r"holds '\\ud83d'",
    ),
    "nothing": ("", "is empty or blank"),
    "blanks": (" \u200b\n", r"is empty or blank \(' \\u200b\\n'\)"),
    "a NUL": ("a\0b", r"holds a NUL \('a\\x00b'\)"),
    "a megabyte": ("a dog " * 170_000, r"has 1,020,000 characters .*at most 100,000"),
}
"""Strings by their kind, each with a pattern of the sentence that refuses it."""

DIRTY = {
    "a dog\u2019s \u201cball\u201d": 'a dog\'s "ball"',
    "the \ufb01rst \ufb02ight": "the first flight",
    "\uff41 \uff44\uff4f\uff47 \uff12": "a dog 2",
    "a dog &amp; a cat": "a dog & a cat",
    "fish &amp;amp; chips &lt;3": "fish & chips <3",
    "3 < 4 &amp;amp; 5": "3 < 4 & 5",
    "na\u00c3\u00afve dog": "na\u00efve dog",
    "it\u0092s late": "it's late",
}
"""Texts as phones, word processors and web pages write them, and what OpenAI's cleaning makes of each, by hand."""
