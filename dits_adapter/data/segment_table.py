"""Segments of videos as rows of Arrow: the schema, and the way there and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dits_adapter._extras import name_missing_extra
from dits_adapter.stores.rows import VideoFile
from dits_adapter.video.encoder import EncodedSegment

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

__all__ = ["EmbeddedFile", "segment_batch", "segment_schema", "segments_of"]

_OF_FILE = ("path", "size", "mtime_ns", "video_id")
_OF_SEGMENT = ("start", "end", "duration", "fps", "decoder", "remark")


class EmbeddedFile(NamedTuple):
    """One row: a segment of a file, or word of the file alone.

    Attributes:
        file: the file; size and time are 0 where it could not be opened.
        segment: the segment; None where the row says why there is none, or that it was not wanted.
        segments: number of segments of the video, on its last one; None on the others.
        error: reason why the file gives no frames, or none after those before this row; empty where nothing is
            wrong.
    """

    file: VideoFile
    segment: EncodedSegment | None = None
    segments: int | None = None
    error: str = ""


def segment_schema(width: int) -> pa.Schema:
    """Return the columns of segments as rows of Arrow.

    | column | type | |
    |---|---|---|
    | `path`, `size`, `mtime_ns` | string, int64 | the file, its bytes and modification time |
    | `video_id` | string | UUID of its content; null where the file could not be read |
    | `start`, `end` | float64 | the segment, in seconds |
    | `duration`, `fps` | float64 | of the whole video |
    | `decoder`, `remark` | string | what read it, and what of its times was made up for |
    | `segments` | int32 | number of segments, on the last one of a video |
    | `timestamps` | list of float64 | when each frame appears, in seconds |
    | `vector` | `width` float32 | pooled, of unit norm |
    | `frames` | list of `width` float32 | vectors of the frames, of unit norm; empty from encoders of clips |
    | `error` | string | why the file gives no frames; null in all other rows |

    All columns of the segment are null in a row that stands for a file: one that cannot be read, or whose content
    was not to be embedded. `video_id`, `vector` and `frames` are those that `import_vectors` reads.

    Args:
        width: dimensions of the vectors.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    with name_missing_extra("rows of Arrow"):
        import pyarrow as pa
    vector = pa.list_(pa.float32(), width)
    return pa.schema(
        {
            "path": pa.string(),
            "size": pa.int64(),
            "mtime_ns": pa.int64(),
            "video_id": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "duration": pa.float64(),
            "fps": pa.float64(),
            "decoder": pa.string(),
            "remark": pa.string(),
            "segments": pa.int32(),
            "timestamps": pa.list_(pa.float64()),
            "vector": vector,
            "frames": pa.list_(vector),
            "error": pa.string(),
        }
    )


def segment_batch(rows: Sequence[EmbeddedFile], schema: pa.Schema) -> pa.RecordBatch:
    """Return rows as one batch of Arrow."""
    import pyarrow as pa

    segments = [row.segment for row in rows]
    columns: dict[str, list[Any]] = {name: [getattr(row.file, name) for row in rows] for name in _OF_FILE}
    columns["video_id"] = [name or None for name in columns["video_id"]]
    columns |= {name: [s and getattr(s, name) for s in segments] for name in _OF_SEGMENT}
    columns["segments"] = [row.segments for row in rows]
    columns["timestamps"] = [s and s.timestamps for s in segments]
    columns["vector"] = [s and s.vector for s in segments]
    columns["frames"] = [s and list(s.frame_vectors) for s in segments]
    columns["error"] = [row.error or None for row in rows]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def segments_of(batch: pa.RecordBatch | pa.Table) -> Iterator[EmbeddedFile]:
    """Read the rows of a batch of `segment_schema`, or of a table of such batches."""
    width = batch.schema.field("vector").type.list_size
    plain = batch.select([name for name in batch.schema.names if name not in ("vector", "frames")])
    for number, row in enumerate(plain.to_pylist()):
        file = VideoFile(row["path"], row["size"], row["mtime_ns"], row["video_id"] or "")
        segment = None
        if row["start"] is not None:
            frames = batch.column("frames")[number].values
            segment = EncodedSegment(
                path=row["path"],
                timestamps=np.array(row["timestamps"], np.float64),
                vector=batch.column("vector")[number].values.to_numpy(),
                frame_vectors=frames.flatten().to_numpy().reshape(-1, width),
                **{name: row[name] for name in _OF_SEGMENT},
            )
        yield EmbeddedFile(file, segment, row["segments"], row["error"] or "")
