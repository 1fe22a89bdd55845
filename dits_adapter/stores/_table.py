"""Tables of segments and failures: their columns, their rows, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.bias import BIAS, ScoreBias
from dits_adapter.stores.rows import PointLayout, StoredSegment
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
    """

    table: Table
    layout: PointLayout
    space: EmbeddingSpace
    ours: bool
    bias: ScoreBias | None

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


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or an array as it is: of another program's column anything may come."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | dict | np.ndarray) else str(value)
