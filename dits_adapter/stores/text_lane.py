"""Texts beside the segments of a collection, and their BM25: the second lane of a search.

Beside each segment may lie what is said in it, a text. Okapi BM25 (Robertson et al., 1994) finds the segments by
the words of a query: the sum over its terms t of idf(t) · w(t, segment), with

    w = f · (k1 + 1) / (f + k1 · (1 - b + b · length / average)),  idf = ln(1 + (N - n + 0.5) / (n + 0.5))

where f counts t in the segment's text, n the segments that have t, and N those that have any term. w depends on
the text alone, so that a database which knows idf keeps the texts as sparse vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from dits_adapter.stores._terms import term_id, terms_of

__all__ = ["SAID", "UNFINISHED", "TextIndex", "TextLane", "TextStatistics", "best_line", "idf"]

SAID = "said"
"""Payload field of the text beside a segment, and name of its sparse vector."""

UNFINISHED = ""
"""Revision of texts that are being written, or whose writing was interrupted."""

_K1, _B = 1.2, 0.75


class TextLane(BaseModel):
    """Record of the texts beside a collection's segments, in its metadata.

    Attributes:
        language: language whose endings are cut off words; None where words stay as they are.
        average: mean number of terms of a text, which lengths are compared with, of later texts too.
        information: mean idf of the terms of the texts, each as often as it occurs.
        revision: another one after each change of the texts, for those who keep an index of them; `UNFINISHED`
            while they are written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str | None
    average: float = Field(gt=0, allow_inf_nan=False)
    information: float = Field(gt=0, allow_inf_nan=False)
    revision: str

    def weights(self, text: str) -> tuple[list[int], list[float]]:
        """Return the distinct terms of a segment's text as numbers, and their weights w, without idf."""
        terms = terms_of(text, self.language)
        slack = _K1 * (1 - _B + _B * len(terms) / self.average)
        counts = Counter(map(term_id, terms))
        return list(counts), [count * (_K1 + 1) / (count + slack) for count in counts.values()]

    def query(self, text: str) -> list[int]:
        """Return the distinct terms of a query as numbers."""
        return list(dict.fromkeys(map(term_id, terms_of(text, self.language))))

    def half(self, text: str) -> float:
        """Return half of the BM25 of a text with all terms of a query, if they are like those of the texts."""
        return 0.5 * self.information * len(self.query(text))


class TextStatistics:
    """Counts of the terms of texts, by which they are ranked.

    Args:
        language: as `TextLane.language`.
    """

    def __init__(self, language: str | None) -> None:
        self._language = language
        self._texts = 0
        self._all: Counter[str] = Counter()
        self._having: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count the terms of a segment's text; one without terms is none."""
        if terms := terms_of(text, self._language):
            self._texts += 1
            self._all.update(terms)
            self._having.update(set(terms))

    @property
    def average(self) -> float:
        """Mean number of terms of a text; 0 without any."""
        return sum(self._all.values()) / max(1, self._texts)

    @property
    def information(self) -> float:
        """Mean idf of the terms, each as often as it occurs; 0 without any."""
        counts = np.array([[times, self._having[term]] for term, times in self._all.items()], float).reshape(-1, 2)
        return float(counts[:, 0] @ idf(self._texts, counts[:, 1]) / max(1.0, counts[:, 0].sum()))


def idf(texts: int, having: ArrayLike) -> NDArray[np.float64]:
    """Return the idf of terms that so many of the texts have."""
    having = np.asarray(having, float)
    return np.log1p((texts - having + 0.5) / (having + 0.5))


class TextIndex:
    """Inverted index of texts in memory, some 12 bytes a term and segment.

    Args:
        lane: record of the texts.
        segments: id, video and text of each segment.

    Attributes:
        ids, videos: ids and videos of the segments that have a term.
    """

    def __init__(self, lane: TextLane, segments: Iterable[tuple[str | int, str | int, str]]) -> None:
        self._lane = lane
        self.ids: list[str | int] = []
        self.videos: list[str | int] = []
        terms, weights, lengths = [], [], []
        for id_, video, text in segments:
            numbers, of_text = lane.weights(text)
            if numbers:
                self.ids.append(id_)
                self.videos.append(video)
                terms.append(np.array(numbers, np.uint32))
                weights.append(np.array(of_text, np.float32))
                lengths.append(len(numbers))
        every = np.concatenate(terms) if terms else np.empty(0, np.uint32)
        order = np.argsort(every, kind="stable")
        self._terms = every[order]
        self._weights = np.concatenate(weights)[order] if weights else np.empty(0, np.float32)
        self._rows = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[order]

    def rank(self, text: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the scores of the segments that have a term of a query, best first, and their places in `ids`."""
        number = len(self.ids)
        scores = np.zeros(number)
        for term in self._lane.query(text):
            first, last = (np.searchsorted(self._terms, np.uint32(term), side) for side in ("left", "right"))
            of_term = idf(number, last - first)
            scores[self._rows[first:last]] += of_term * self._weights[first:last].astype(np.float64)
        found = np.flatnonzero(scores)
        found = found[np.argsort(-scores[found], kind="stable")]
        return scores[found], found


def best_line(text: str, query: str, language: str | None = None) -> str:
    """Return the line of a text that has the most terms of a query, the first of several."""
    wanted = set(terms_of(query, language))
    return max(text.splitlines() or [""], key=lambda line: len(wanted & set(terms_of(line, language))))
