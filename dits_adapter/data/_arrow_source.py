"""Vectors in Parquet files, Arrow files and tables of pyarrow, read as streams."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import name_missing_extra
from dits_adapter._files import sha256
from dits_adapter.data._vector_source import BLOCK_ROWS, VideoBlock
from dits_adapter.data.pairs_file import ID_COLUMN, TEXT_COLUMN
from dits_adapter.data.provenance import MARKS, mark_of
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["ARROW_FORMATS", "ArrowTexts", "ArrowVideos"]

ARROW_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}
"""Format of a file by the end of its name."""

_VECTOR = ("vector", "embedding")


class ArrowTexts:
    """A `TextSource` of a table with the columns `video_id`, `vector` and perhaps `text`, `source`, `confidence`.

    Args:
        source: a file of `ARROW_FORMATS`, or a `pyarrow.Table`.
        width: dimensions; None for those of the first row.

    Raises:
        InputError: a file cannot be read, or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, source: Any, width: int | None) -> None:
        choices = {"video_id": ID_COLUMN, "vector": _VECTOR, "text": TEXT_COLUMN} | {n: (n,) for n in MARKS}
        self._table = _Table(source, "the table of texts", choices, optional=("text", *MARKS))
        self.label, self.count = self._table.label, self._table.rows
        self.width = self._table.width(width)
        self.captions = "text" in self._table.columns
        self.marked = any(name in self._table.columns for name in MARKS)

    @property
    def digests(self) -> list[str]:
        return [self._table.digest()]

    def labels(self) -> None:
        return None

    def names(self) -> Iterator[str]:
        return self._table.strings("video_id")

    def place(self, row: int) -> str:
        return f"{self.label}, row {row}"

    def blocks(self) -> Iterator[NDArray[Any]]:
        return (matrix for _, (matrix,) in self._table.blocks(vector=(self.width,)))

    def marks(self) -> Iterator[tuple[str, float]]:
        return self._table.marks()

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        texts = self._table.strings("text")
        for vectors in self.blocks():
            yield vectors, list(islice(texts, len(vectors)))


class ArrowVideos:
    """A `VideoSource` of a table with the columns `video_id`, `vector` and perhaps `frames`.

    Arguments and errors are those of `ArrowTexts`.
    """

    def __init__(self, source: Any, width: int | None) -> None:
        choices = {"video_id": ID_COLUMN, "vector": _VECTOR, "frames": ("frames",)}
        self._table = _Table(source, "the table of videos", choices, optional=("frames",))
        self.label, self.count = self._table.label, self._table.rows
        self.width = self._table.width(width)
        self.frames = 0
        if "frames" in self._table.columns:
            _, (frames,) = next(self._table.blocks(frames=(None, self.width)))
            self.frames = frames.shape[1]

    @property
    def digests(self) -> list[str]:
        return [self._table.digest()]

    def ids(self) -> Iterator[str]:
        return self._table.strings("video_id")

    def blocks(self, first: int = 0) -> Iterator[VideoBlock]:
        ids = islice(self.ids(), first, None)
        shapes: dict[str, tuple[int | None, ...]] = {"vector": (self.width,)}
        if self.frames:
            shapes["frames"] = (self.frames, self.width)
        for row, (vectors, *rest) in self._table.blocks(**shapes):
            skipped = max(0, first - row)
            if skipped >= len(vectors):
                continue
            frames = rest[0] if rest else vectors[:, None][:, :0]
            names = np.array(list(islice(ids, len(vectors) - skipped)), object)
            yield VideoBlock(names, vectors[skipped:], frames[skipped:], np.full(len(names), "", object))


class _Table:
    """Columns of a table, read in blocks.

    Attributes:
        label: name of the table, for messages.
        columns: name of each column in the table, by its key.
        rows: number of rows.
    """

    def __init__(
        self, source: Any, label: str, choices: Mapping[str, Sequence[str]], *, optional: Sequence[str]
    ) -> None:
        with name_missing_extra("reading Parquet and Arrow files"):
            import pyarrow  # type: ignore[import-untyped]
            import pyarrow.dataset  # type: ignore[import-untyped]
        self._source = source
        self.label = str(source) if isinstance(source, Path) else label
        try:
            if isinstance(source, Path):
                form = ARROW_FORMATS[source.suffix.lower()]
                self._data = pyarrow.dataset.dataset(source, format=form)
            else:
                self._data = pyarrow.dataset.dataset(source)
            self.rows = self._data.count_rows()
        except (OSError, pyarrow.ArrowException) as error:
            kind = "Parquet" if source.suffix.lower() == ".parquet" else "Arrow"
            raise InputError(f"{source}: is no {kind} file that can be read ({error}).") from None
        names = self._data.schema.names
        self.columns = {
            key: name
            for key, several in choices.items()
            if (name := next((choice for choice in several if choice in names), None)) is not None
        }
        for key in choices:
            if key not in self.columns and key not in optional:
                raise InputError(f"{self.label}: has no column {key!r}; it has {', '.join(names)}.")
        if not self.rows:
            raise InputError(f"{self.label}: holds no rows.")

    def digest(self) -> str:
        """Return the SHA-256 of the content, in hex."""
        if isinstance(self._source, Path):
            return sha256(self._source)
        digest = hashlib.sha256()
        for batch in self._source.to_batches(max_chunksize=BLOCK_ROWS):
            digest.update(batch.serialize())
        return digest.hexdigest()

    def width(self, expected: int | None) -> int:
        """Return the dimensions of the column `vector`."""
        _, (vectors,) = next(self.blocks(vector=(expected,)))
        return int(vectors.shape[1])

    def strings(self, key: str) -> Iterator[str]:
        """Read a column of texts, or of ids, which may be whole numbers and UUIDs."""
        for first, (column,) in self._batches([key]):
            for row, value in enumerate(column.to_pylist(), first):
                if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
                    raise InputError(f"{self.label}, row {row}: {key} is {value!r}; a string is expected.")
                if key == "text" and (fault := text_fault(str(value))):
                    raise InputError(f"{self.label}, row {row}: text {fault}.")
                yield str(value).strip() if key == "video_id" else str(value)

    def marks(self) -> Iterator[tuple[str, float]]:
        """Read the columns of sources and confidences, one of which may be missing."""
        keys = [name for name in MARKS if name in self.columns]
        for first, columns in self._batches(keys):
            for row, values in enumerate(zip(*(column.to_pylist() for column in columns), strict=True), first):
                given = dict(zip(keys, values, strict=True))
                try:
                    yield mark_of(*(given.get(name) for name in MARKS))
                except ValueError as error:
                    raise InputError(f"{self.label}, row {row}: {error}.") from None

    def blocks(self, **shapes: tuple[int | None, ...]) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
        """Read columns of lists of these shapes as arrays, each block with the number of its first row."""
        for first, columns in self._batches(list(shapes)):
            yield (
                first,
                [
                    self._matrix(column, key, first, shape)
                    for column, (key, shape) in zip(columns, shapes.items(), strict=True)
                ],
            )

    def _batches(self, keys: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        first = 0
        names = [self.columns[key] for key in keys]
        for batch in self._data.to_batches(columns=names, batch_size=BLOCK_ROWS, batch_readahead=1):
            if batch.num_rows:
                yield first, [batch.column(name) for name in names]
                first += batch.num_rows

    def _matrix(self, column: Any, key: str, first: int, row_shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        """Turn a column of lists, or of lists of lists, into an array; a length of None is that of the first."""
        import pyarrow
        import pyarrow.compute  # type: ignore[import-untyped]

        if isinstance(column, pyarrow.ExtensionArray):  # of tensors
            column = column.storage
        shape = [len(column)]
        for expected in row_shape:
            if not hasattr(column.type, "value_type"):
                raise InputError(
                    f"{self.label}: {key} is a column of {column.type}; lists of floats are expected."
                )
            lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
            length = lengths[0] if expected is None else expected
            odd = np.flatnonzero(lengths != length)  # a missing list has the length NaN
            if len(odd):
                row = first + odd[0] // (len(lengths) // shape[0])
                raise InputError(
                    f"{self.label}, row {row}: {key} is missing or has length {lengths[odd[0]]:g}; {length:g} is "
                    "expected."
                )
            shape.append(int(length))
            column = column.flatten()
        if not pyarrow.types.is_floating(column.type):
            raise InputError(f"{self.label}: {key} holds {column.type}; floats are expected.")
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values.astype(np.float32, copy=False).reshape(shape)
