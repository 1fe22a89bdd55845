"""Vectors in Parquet files, read as streams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import name_missing_extra
from dits_adapter.data._ids import did_you_mean, id_digest, without_suffix
from dits_adapter.data._vector_source import BLOCK_ROWS, TextBlock, VectorFiles, VideoBlock
from dits_adapter.errors import InputError
from dits_adapter.texts import text_fault

__all__ = ["ParquetSource"]


class ParquetSource:
    """A `VectorSource` of two Parquet files.

    Args:
        files: the files.
        widths: dimensions of texts and videos; None for those of the first rows.

    Raises:
        InputError: a file cannot be read, or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, files: VectorFiles, widths: tuple[int | None, int | None]) -> None:
        texts, videos = files.texts, files.videos
        self.files = [texts, videos]
        self.texts, in_texts = _rows_and_columns(texts)
        self.videos, in_videos = _rows_and_columns(videos)
        self.widths = (_width(texts, widths[0]), _width(videos, widths[1]))
        self.captions = "text" in in_texts
        self._columns = ["video_id", "vector", *(["frames"] if "frames" in in_videos else [])]
        self.frames = 0
        if "frames" in in_videos:
            _, (frames,) = next(_batches(videos, ["frames"]))
            self.frames = _matrix(frames, videos, "frames", 0, (None, self.widths[1])).shape[1]
        digests = b"".join(map(id_digest, self.ids()))
        self._order = np.argsort(np.frombuffer(digests, "S16"))
        self._sorted = np.frombuffer(digests, "S16")[self._order]

    def ids(self) -> Iterator[str]:
        for first, (names,) in _batches(self.files[1], ["video_id"]):
            yield from _strings(names, self.files[1], "video_id", first)

    def text_blocks(self) -> Iterator[TextBlock]:
        path = self.files[0]
        for first, (names, vectors) in _batches(path, ["video_id", "vector"]):
            ids = _strings(names, path, "video_id", first)
            places, known = self._places(ids)
            if not known.all():  # which may name files
                bare_places, bare_known = self._places([without_suffix(name) or name for name in ids])
                places = np.where(known, places, bare_places)
                known |= bare_known
            if not known.all():
                row = int(np.argmin(known))
                meant = did_you_mean(ids[row], list(islice(self.ids(), BLOCK_ROWS))) or "."
                raise InputError(
                    f"{path}, row {first + row}: the video {ids[row]!r} is not in {self.files[1]}{meant}"
                )
            yield TextBlock(_matrix(vectors, path, "vector", first, self.widths[:1]), self._order[places])

    def _places(self, ids: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the places of ids among the sorted ones, and whether each is there."""
        digests = np.frombuffer(b"".join(map(id_digest, ids)), "S16")
        places = np.minimum(np.searchsorted(self._sorted, digests), len(self._sorted) - 1)
        return places, self._sorted[places] == digests

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        path = self.files[0]
        for first, (vectors, texts) in _batches(path, ["vector", "text"]):
            yield _matrix(vectors, path, "vector", first, self.widths[:1]), _strings(texts, path, "text", first)

    def video_blocks(self) -> Iterator[VideoBlock]:
        path = self.files[1]
        for first, (names, vectors, *rest) in _batches(path, self._columns):
            pooled = _matrix(vectors, path, "vector", first, self.widths[1:])
            frames = pooled[:, None][:, :0]
            if rest:
                frames = _matrix(rest[0], path, "frames", first, (self.frames, self.widths[1]))
            yield VideoBlock(np.array(_strings(names, path, "video_id", first), object), pooled, frames)


def _parquet(path: Path) -> Any:
    with name_missing_extra("reading Parquet files"):
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: is no Parquet file that can be read ({error}).") from None


def _rows_and_columns(path: Path) -> tuple[int, list[str]]:
    file = _parquet(path)
    columns = file.schema_arrow.names
    for name in ("video_id", "vector"):
        if name not in columns:
            raise InputError(f"{path}: has no column {name!r}; it has {', '.join(columns)}.")
    if not file.metadata.num_rows:
        raise InputError(f"{path}: holds no rows.")
    return file.metadata.num_rows, columns


def _width(path: Path, width: int | None) -> int:
    _, (vectors,) = next(_batches(path, ["vector"]))
    return _matrix(vectors, path, "vector", 0, (width,)).shape[1]


def _batches(path: Path, columns: list[str]) -> Iterator[tuple[int, list[Any]]]:
    """Read some columns in blocks, each with the number of its first row."""
    first = 0
    for batch in _parquet(path).iter_batches(batch_size=BLOCK_ROWS, columns=columns):
        yield first, [batch.column(name) for name in columns]
        first += batch.num_rows


def _strings(column: Any, path: Path, name: str, first: int) -> list[str]:
    values = column.to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str | int):
            raise InputError(f"{path}, row {first + row}: {name} is {value!r}; a string is expected.")
        if name == "text" and (fault := text_fault(str(value))):
            raise InputError(f"{path}, row {first + row}: text {fault}.")
    return [str(value).strip() if name == "video_id" else str(value) for value in values]


def _matrix(
    column: Any, path: Path, name: str, first: int, row_shape: tuple[int | None, ...]
) -> NDArray[np.float32]:
    """Turn a column of lists, or of lists of lists, into an array; a length of None is that of the first list."""
    import pyarrow
    import pyarrow.compute  # type: ignore[import-untyped]

    shape = [len(column)]
    for expected in row_shape:
        if not hasattr(column.type, "value_type"):
            raise InputError(f"{path}: {name} is a column of {column.type}; lists of floats are expected.")
        lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
        length = lengths[0] if expected is None else expected
        odd = np.flatnonzero(lengths != length)  # a missing list has the length NaN
        if len(odd):
            row = first + odd[0] // (len(lengths) // shape[0])
            raise InputError(
                f"{path}, row {row}: {name} is missing or has length {lengths[odd[0]]:g}; {length:g} is expected."
            )
        shape.append(int(length))
        column = column.flatten()
    if not pyarrow.types.is_floating(column.type):
        raise InputError(f"{path}: {name} holds {column.type}; floats are expected.")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float32, copy=False).reshape(shape)
