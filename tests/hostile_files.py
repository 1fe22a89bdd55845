"""The same text as files of many kinds: encodings, byte order marks and line ends."""

from __future__ import annotations

from collections.abc import Iterator

ENCODINGS = {
    "UTF-8": "utf-8",
    "UTF-8 with a mark": "utf-8-sig",
    "UTF-16 LE": "utf-16-le",
    "UTF-16 BE": "utf-16-be",
    "UTF-32": "utf-32",
}
ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}


def written(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name of the kind, bytes) of a text, blank lines at the end included."""
    for name, encoding in ENCODINGS.items():
        mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
        for end_name, end in ENDS.items():
            yield f"{name}, {end_name}", (mark + (text + "\n\n \n").replace("\n", end)).encode(encoding)
