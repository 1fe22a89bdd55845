"""Sources of texts: the words of a pairs file for where a text comes from, and the sources that may judge.

| source | a text that |
|---|---|
| `human` | a person wrote to describe the video; lines without a source |
| `feedback` | was typed as a query, whose hit a person chose or refused |
| `subtitles`, `sidecar`, `title`, `field` | people wrote for something else: subtitles, a file beside the video, a title, a field of a collection |
| `speech`, `caption`, `query` | a model wrote: speech recognition, a caption of the frames, a query made from other texts |
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import shown_repr

__all__ = ["JUDGES", "MACHINES", "MARKS", "SOURCES", "TextMarks", "mark_of", "number_of"]

SOURCES = ("human", "feedback", "subtitles", "sidecar", "title", "field", "speech", "caption", "query")
"""Sources; the place of one is its code in a cache, so that new ones are added at the end."""

JUDGES = ("human", "feedback")
"""Sources whose texts judge adapters wherever there are enough of them; all others then only train."""

MARKS = ("source", "confidence")
"""Keys and columns of the marks of a text."""

MACHINES = ("speech", "caption", "query")
"""Sources whose texts a model wrote."""


def mark_of(source: Any, confidence: Any) -> tuple[str, float]:
    """Check the source and the confidence of a text, as a file has them; None stands for `human` and 1.

    Raises:
        ValueError: no source, or no probability, with what is accepted.

    >>> mark_of("caption", "0.5"), mark_of(None, None)
    (('caption', 0.5), ('human', 1.0))
    """
    if source is not None and source not in SOURCES:
        raise ValueError(f'"source" is {source!r:.40}; expected one of {", ".join(SOURCES)}; rename what is none')
    probability = number_of(confidence, "confidence")
    if probability is not None and not 0 < probability <= 1:
        raise ValueError(f'"confidence" is {probability:g}; expected a probability above 0 and up to 1')
    return source or SOURCES[0], 1.0 if probability is None else probability


def number_of(value: Any, name: str) -> float | None:
    """Return a finite number, which in a table is text; None for None.

    Raises:
        ValueError: the value is something else; the message has the name.
    """
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'"{name}" is {value!r:.40}; expected a number')
    return number


@dataclass(frozen=True, eq=False)
class TextMarks:
    """Source and confidence of texts.

    Attributes:
        sources: place in `SOURCES` of each text's source, (n,) uint8.
        confidences: probability that each text is right for its video, (n,) float32.
    """

    sources: NDArray[np.uint8]
    confidences: NDArray[np.float32]

    __repr__ = shown_repr

    @classmethod
    def of(cls, marks: Iterable[tuple[str, float]]) -> TextMarks:
        """Gather the source and the confidence of each text.

        >>> TextMarks.of([("human", 1.0), ("caption", 0.5)]).sources.tolist()
        [0, 7]
        """
        sources, confidences = zip(*marks, strict=True)
        return cls(
            np.array([SOURCES.index(source) for source in sources], np.uint8), np.array(confidences, np.float32)
        )

    def counts(self) -> dict[str, int]:
        """Return the number of texts of each source that there is."""
        return {SOURCES[code]: int(count) for code, count in enumerate(np.bincount(self.sources)) if count}

    def __getitem__(self, texts: NDArray[np.int64] | slice) -> TextMarks:
        return TextMarks(self.sources[texts], self.confidences[texts])
