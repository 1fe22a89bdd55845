"""Sources of texts: the words of a pairs file for where a text comes from, and the sources that may judge.

| source | a text that |
|---|---|
| `human` | a person wrote to describe the video; lines without a source |
| `feedback` | was typed as a query, whose hit a person chose or refused |
| `subtitles`, `sidecar`, `title`, `field` | people wrote for something else: subtitles, a file beside the video, a title, a field of a collection |
| `speech`, `caption`, `query` | a model wrote: speech recognition, a caption of the frames, a query made from other texts |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["JUDGES", "MACHINES", "SOURCES", "TextMarks"]

SOURCES = ("human", "feedback", "subtitles", "sidecar", "title", "field", "speech", "caption", "query")
"""Sources; the place of one is its code in a cache, so that new ones are added at the end."""

JUDGES = ("human", "feedback")
"""Sources whose texts judge adapters wherever there are enough of them; all others then only train."""

MACHINES = ("speech", "caption", "query")
"""Sources whose texts a model wrote."""


@dataclass(frozen=True, eq=False)
class TextMarks:
    """Source and confidence of texts.

    Attributes:
        sources: place in `SOURCES` of each text's source, (n,) uint8.
        confidences: probability that each text is right for its video, (n,) float32.
    """

    sources: NDArray[np.uint8]
    confidences: NDArray[np.float32]

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

    def __getitem__(self, texts: NDArray[np.int64]) -> TextMarks:
        return TextMarks(self.sources[texts], self.confidences[texts])
