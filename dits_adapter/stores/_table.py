"""Tables of segments and failures: their columns, their rows, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import no_such_vector
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._video_count import VideoCount
from dits_adapter.stores._words import words_of
from dits_adapter.stores.bias import BIAS, ScoreBias
from dits_adapter.stores.metadata import PointLayout
from dits_adapter.stores.requests import ReadRequest, VideoFilter
from dits_adapter.stores.rows import SegmentRow, StoredSegment
from dits_adapter.stores.text_lane import SAID

__all__ = [
    "FAILURE",
    "FAILURES",
    "FRAMES",
    "KEY",
    "OURS",
    "SEGMENTS",
    "TENANT",
    "VECTOR",
    "WORDS",
    "Condition",
    "Opened",
    "Row",
    "Table",
    "path_words",
    "segment_row",
]

KEY, VECTOR, FRAMES = "id", "vector", "frames"
"""Columns of our tables: the key, the pooled vector, and the frame vectors one after the other."""

WORDS, TENANT, FAILURE = "words", "tenant", "failure"
"""Columns: words of the path, each between blanks; whose a row is; why a file gave no frames."""

SEGMENTS = {
    "video_id": "text",
    "path": "text",
    WORDS: "text",
    "start": "float",
    "end": "float",
    "timestamps": "floats",
    "duration": "float",
    "fps": "float",
    "decoder": "text",
    "size": "int",
    "mtime_ns": "int",
    "segments": "int",
    TENANT: "text",
    BIAS: "float",
    SAID: "text",
}
"""Columns of a table of segments beside `KEY`, `VECTOR` and `FRAMES`, with the kind of their values, or null."""

FAILURES = {"path": "text", "size": "int", "mtime_ns": "int", FAILURE: "text", TENANT: "text"}
"""Columns of a table of failures beside `KEY`, likewise."""

OURS = PointLayout(vector=VECTOR, video="video_id")
Row = dict[str, Any]
"""Values of a row by its columns; vectors are arrays, (d,) float32, frame vectors (n, d), or flat where read."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, as its database describes it.

    Attributes:
        columns: kind of the values of each column: "text", "int", "float", "floats" (a list), "vector" or "other".
        widths: width of each column of vectors.
        key: column of the primary key.
        metadata: `CollectionMetadata` as JSON; None where there is none.
    """

    columns: Mapping[str, str]
    widths: Mapping[str, int]
    key: str
    metadata: str | None

    def require(self, layout: PointLayout, space: EmbeddingSpace, *, collection: str, whose: str) -> None:
        """Refuse a table without a key, or without the vector of a layout in the width of a space.

        Args:
            layout: names of the columns.
            space: the embedding space.
            collection: name of the collection, for messages.
            whose: subject of the width of the space, likewise: "the queries have".

        Raises:
            InputError: a column of videos that holds something else.
            SpaceMismatchError: the vectors are of another width.
            StoreError: no such columns.
        """
        if self.key not in self.columns:
            raise StoreError(f"the collection {collection!r} has no column {self.key!r} of ids.")
        if layout.video is not None and self.columns.get(layout.video, "text") not in ("text", "int"):
            raise InputError(
                f"the column {layout.video!r} of the collection {collection!r} holds neither texts nor integers, "
                "and cannot tell videos apart; name another one."
            )
        width = self.width_of(layout.vector, collection)
        if width != space.video.width:
            raise SpaceMismatchError(
                f"the vector {layout.vector!r} of the collection {collection!r} has width {width}; {whose} "
                f"{space.video.width} ({space})."
            )

    def width_of(self, vector: str, collection: str) -> int:
        """Return the width of a column of vectors; "" is the only one that there is.

        Raises:
            StoreError: no such column.
        """
        vector = vector or (next(iter(self.widths)) if len(self.widths) == 1 else "")
        if vector not in self.widths:
            raise StoreError(no_such_vector(collection, vector, self.widths))
        return self.widths[vector]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Rows of a table, by their values; all of the conditions hold.

    Attributes:
        among: values of which a column has one.
        contains: strings, each of which is in one of the columns `texts`, with the same case.
        texts: columns of text.
        least, most: bounds of columns.
        present: columns that are not null.
    """

    among: Mapping[str, Sequence[str | int]] = field(default_factory=dict)
    contains: Sequence[str] = ()
    texts: Sequence[str] = ()
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    present: Sequence[str] = ()

    def with_any(self, column: str, values: Sequence[str | int]) -> Condition:
        """Return the rows among these whose column has one of these values."""
        return replace(self, among={**self.among, column: values})


@dataclass(frozen=True)
class Opened:
    """A collection that was checked.

    Attributes:
        table: its table of segments.
        layout: names of the columns.
        space: the embedding space that it is searched in.
        ours: True where this package made it.
        bias: record of its score bias.
        videos: number of its videos, where it is of another program.
    """

    table: Table
    layout: PointLayout
    space: EmbeddingSpace
    ours: bool
    bias: ScoreBias | None
    videos: VideoCount = field(default_factory=VideoCount, compare=False)

    @property
    def vector(self) -> str:
        """Column of the pooled vector."""
        return self.layout.vector or next(iter(self.table.widths))

    @property
    def has_frames(self) -> bool:
        """True where segments have frame vectors; another program's column `frames` is something else."""
        return self.ours and FRAMES in self.table.columns

    @property
    def payload(self) -> list[str]:
        """Columns to read of a segment, the key among them."""
        hidden = (WORDS, FRAMES) if self.ours else (FRAMES,)
        return [name for name, kind in self.table.columns.items() if name not in hidden and kind != "vector"]

    def segment(self, row: Row) -> StoredSegment:
        """Describe a row that was read."""
        payload = {name: _plain(value) for name, value in row.items() if value is not None}
        vector, frames = payload.pop(self.vector, None), payload.pop(FRAMES, None)
        key = payload.pop(self.table.key) if self.ours else payload[self.table.key]
        vector = None if vector is None else np.asarray(vector, np.float32)
        return StoredSegment(key, payload, vector, self.frames(frames))

    def frames(self, vectors: Any) -> NDArray[np.float32] | None:
        """Give frame vectors their shape, (n, d)."""
        return None if vectors is None else np.reshape(vectors, (-1, self.space.video.width))

    def requested(self, request: ReadRequest, scope: Condition) -> Iterator[Condition]:
        """Yield the condition of a request among the rows of `scope`; none where no row can meet it."""
        if request.ids is None and request.field is None:
            yield scope
            return
        column = self.table.key if request.ids is not None else request.field or self.table.key
        values: Sequence[str | int] = request.values if request.ids is None else request.ids
        kind = self.table.columns.get(column)
        if kind == "int":
            numbers = [int(value) for value in values if str(value).removeprefix("-").isdecimal()]
            values = [number for number in numbers if -(1 << 63) <= number < 1 << 63]
        elif kind == "text":
            values = [value for value in values if isinstance(value, str)]
        else:
            values = []
        if values:
            yield scope.with_any(column, values)

    def matching(self, wanted: VideoFilter | None, scope: Condition, collection: str) -> Condition:
        """Return the condition of a search's filter among the rows of `scope`.

        Raises:
            InputError: the collection of that name lacks a column of the filter.
        """
        if wanted is None:
            return scope
        least, most = (
            {} if bound is None else {"duration": bound} for bound in (wanted.min_duration, wanted.max_duration)
        )
        texts = (WORDS,) if self.ours else self.layout.searched_texts
        words = [_spaced(word) for word in words_of(wanted.words)] if self.ours else wanted.words.split()
        for column in [*(texts if words else ()), *(least | most)]:
            if column not in self.table.columns:
                raise InputError(
                    f"the collection {collection!r} has no column {column!r}, which the filter needs."
                )
        return replace(scope, contains=words, texts=texts, least=least, most=most)


def segment_row(row: SegmentRow, tenant: str | None) -> Row:
    """Describe a segment as a row of our table."""
    described: Row = dict.fromkeys(SEGMENTS)
    described |= row.payload() | {KEY: row.id, WORDS: path_words(row.path), TENANT: tenant}
    return described | {VECTOR: row.vector, FRAMES: row.frame_vectors}


def path_words(path: str) -> str:
    """Return the words of a path in one text, each between blanks."""
    return _spaced(" ".join(words_of(path)))


def _spaced(text: str) -> str:
    return f" {text} "


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or an array as it is: of another program's column anything may come."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | dict | np.ndarray) else str(value)
