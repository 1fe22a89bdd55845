"""EmbedVideos: a callable for engines that run functions over batches of paths, such as Ray Data and Daft."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from dits_adapter._hub import absolute_name
from dits_adapter._reprs import short_repr
from dits_adapter.data.segment_table import EmbeddedFile, segment_batch, segment_schema
from dits_adapter.errors import InputError, VideoError
from dits_adapter.stores._discover import identify
from dits_adapter.stores.metadata import require_segments
from dits_adapter.stores.rows import VideoFile
from dits_adapter.video.encoder import EncodedSegment, VideoEncoder

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

__all__ = ["EmbedVideos"]

_ROWS = 64
"""Rows of a batch: 1.7 MB for 12 frames of width 512."""


class EmbedVideos:
    """Callable that embeds videos: a batch of paths in, a row of `segment_schema` for each segment out.

    It is cheap to pickle: it travels as a name and options, and loads the model at its first call in a process,
    so that `ray.data.Dataset.map_batches(EmbedVideos, …)` loads one an actor. Rows come in batches of 64 while the
    next segments are decoded, and no more of them are in memory. A file that cannot be read is a row with its
    `error`, and ends nothing. GPUs and their fractions are the engine's to give (`num_gpus=0.5`).

    Args:
        encoder: an encoder or a trained adapter: folder, bundled name or hub id.
        segment_seconds: length of a segment; None for one a video.
        overlap: seconds that neighboring segments share.
        column: column of the paths, where a batch has columns.
        workers: decoding threads; None for one a CPU core, at most 8.
        options: of `VideoEncoder.from_pretrained`: `frames`, `device`, `revision`, `limits`, `decoder`, `limit`.

    Raises:
        InputError: segments that cannot be cut.

    Examples:
        >>> embed = EmbedVideos("demo-clip", segment_seconds=2)
        >>> [table.num_rows for table in embed({"path": ["no/such/file.mp4"]})]
        [1]
    """

    def __init__(
        self,
        encoder: str | PathLike[str],
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        column: str = "path",
        workers: int | None = None,
        **options: Any,
    ) -> None:
        require_segments(segment_seconds, overlap)
        self._name = absolute_name(encoder)
        self._options = options
        self._column = column
        self._segment_seconds, self._overlap, self._workers = segment_seconds, overlap, workers
        self._encoder: VideoEncoder | None = None

    def __repr__(self) -> str:
        return short_repr(self, self._name, column=self._column, segment_seconds=self._segment_seconds)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    @property
    def encoder(self) -> VideoEncoder:
        """The encoder, loaded where it is first needed.

        Raises:
            ArtifactError: nothing loadable is there.
        """
        if self._encoder is None:
            self._encoder = VideoEncoder.from_pretrained(self._name, **self._options)
        return self._encoder

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows; the model is loaded for its width."""
        return segment_schema(self.encoder.space.video.width)

    def __call__(self, batch: Any) -> Iterator[pa.Table]:
        """Embed a batch: a table, a data frame or a mapping with a column of paths, or paths.

        Yields:
            Tables of 64 rows or fewer.

        Raises:
            InputError: no such column, or something else than paths in it.
        """
        import pyarrow as pa

        for rows in self.batches(self._paths(batch)):
            yield pa.Table.from_batches([rows])

    def nested(self, paths: Any) -> pa.Array:
        """Embed paths and return for each the list of its rows, where an engine's functions keep their number.

        Returns:
            Array of lists of structs with the fields of `schema`, as long as `paths`; explode it.

        Raises:
            InputError: as a call.
        """
        import pyarrow as pa

        names = self._paths(paths)
        places = {path: place for place, path in enumerate(dict.fromkeys(names))}
        table = pa.Table.from_batches(self.batches(names), self.schema).combine_chunks()
        spelled = table["path"].to_pylist()
        starts = [row for row, path in enumerate(spelled) if row == 0 or path != spelled[row - 1]]
        lists = pa.ListArray.from_arrays([*starts, len(spelled)], pa.array(table.to_struct_array()))
        return lists.take(pa.array([places[path] for path in names], pa.int64()))

    def batches(
        self,
        paths: Sequence[str],
        *,
        unwanted: Callable[[Sequence[str]], Collection[str]] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Embed files.

        Args:
            paths: files.
            unwanted: returns those of some video ids whose content need not be embedded; each gives one row,
                without a segment.

        Yields:
            Batches of 64 rows or fewer, in the order of the paths; a path that comes twice is embedded once.
        """
        schema, waiting = self.schema, []
        for row in self._rows(paths, unwanted):
            waiting.append(row)
            if len(waiting) == _ROWS:
                yield segment_batch(waiting, schema)
                waiting = []
        if waiting:
            yield segment_batch(waiting, schema)

    def _rows(
        self, paths: Sequence[str], unwanted: Callable[[Sequence[str]], Collection[str]] | None
    ) -> Iterator[EmbeddedFile]:
        """Yield the rows of files, in their order; the last segment of each with their number."""
        files: dict[str, VideoFile] = {}
        errors: dict[str, VideoError] = {}
        paths = list(dict.fromkeys(paths))
        for path in paths:
            try:
                files[path] = identify(path)
            except VideoError as error:
                errors[path] = error
        left_out = set() if unwanted is None else unwanted([file.video_id for file in files.values()])
        wanted = [path for path, file in files.items() if file.video_id not in left_out]
        encoded = self.encoder.iter_segments(
            wanted,
            segment_seconds=self._segment_seconds,
            overlap=self._overlap,
            workers=self._workers,
            on_error=lambda error: errors.update({error.path: error}),
        )
        segment = next(encoded, None)
        for path in paths:
            file, count = files.get(path), 0
            if file is None:
                file = VideoFile(errors[path].path, 0, 0)  # whose name can be stored
            while segment is not None and segment.path == path:
                count += 1
                following: EncodedSegment | None = next(encoded, None)
                last = (following is None or following.path != path) and path not in errors
                yield EmbeddedFile(file, segment, count if last else None)
                segment = following
            if path in errors or not count:
                reason = errors[path].reason if path in errors else "gave no segments" if path in wanted else ""
                yield EmbeddedFile(file, error=reason)

    def _paths(self, batch: Any) -> list[str]:
        """Return the paths of a batch: of its column, where it has columns."""
        import pyarrow as pa

        if isinstance(batch, str | PathLike):
            raise InputError(f"the batch is one path, {os.fspath(batch)!r}; give a list of paths.")
        if isinstance(batch, pa.Table | pa.RecordBatch):
            columns: Any = batch.schema.names
        else:  # a mapping, a data frame, or paths
            columns = batch if isinstance(batch, Mapping) else getattr(batch, "columns", None)
        if columns is not None:
            if self._column not in columns:
                names = ", ".join(map(str, columns)) or "none"
                raise InputError(f"the batch has no column {self._column!r} of paths; it has {names} (column=…).")
            batch = batch[self._column]
        paths = batch.to_pylist() if hasattr(batch, "to_pylist") else list(batch)
        for row, path in enumerate(paths):
            if not isinstance(path, str | PathLike):
                raise InputError(f"row {row} of the batch is {path!r}; a path is expected.")
        return [os.fspath(path) for path in paths]
