"""A segment of a video as a point of a Qdrant collection, and what the collection says about itself.

A point is one segment of one video. It has two vectors, `video` (the pooled one, cosine, searched through HNSW)
and `frames` (one vector a frame, MaxSim, not indexed: for locating and re-ranking), and this payload:

| field               | meaning                                                                        |
|---------------------|--------------------------------------------------------------------------------|
| `video_id`          | UUID made from the file's content: a renamed file keeps its id                 |
| `path`              | where that content was last seen, absolute                                     |
| `start`, `end`      | the segment, in seconds                                                        |
| `timestamps`        | of the frames, in seconds                                                      |
| `duration`, `fps`   | of the whole video                                                             |
| `decoder`           | which backend decoded it                                                       |
| `size`, `mtime_ns`  | of the file when it was read: an unchanged file is recognized without reading  |
| `tenant`            | whose it is, in a collection that keeps tenants apart                          |
| `segments`          | on a video's last segment only: how many there are; a video with fewer, or     |
|                     | without this number, was interrupted and is done again                         |

A file that could not be read is a point without vectors, which no search returns: `path`, `size`, `mtime_ns` and
`failure`, the reason. Everything that ingestion has to remember thus lives in the collection itself, and travels
with its snapshots, replicas and aliases.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict
from qdrant_client import models

from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from dits_adapter.video.encoder import EncodedSegment

METADATA_KEY = "dits_adapter"
"""Key of the collection's metadata under which the `CollectionMetadata` is kept."""

POOLED, FRAMES = "video", "frames"

TENANT = "tenant"
"""Payload field that says whose a segment is."""

_NAMESPACE = uuid.UUID("5d0f6c52-6f0e-5f0c-9d3c-1f7c0b7a4e21")


class CollectionMetadata(BaseModel):
    """What a collection says about itself: how its vectors were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    space: EmbeddingSpace
    segment_seconds: float | None = None
    overlap: float = 0.0
    tenants: bool = False


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file on disk, and the identity of its content."""

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""


@dataclass(slots=True)
class Record:
    """What a collection knows about one video, or about one file that could not be read (`failure`)."""

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""
    failure: str = ""
    found: int = 0
    expected: int = -1

    @property
    def complete(self) -> bool:
        """Whether all segments of the video are there."""
        return self.found == self.expected

    def is_of(self, file: VideoFile) -> bool:
        """Whether `file` is, by name, size and modification time, the one that this was recorded of."""
        return (self.path, self.size, self.mtime_ns) == (file.path, file.size, file.mtime_ns)


@dataclass(frozen=True)
class Hit:
    """One segment that matches a query.

    Attributes:
        id: of its point.
        video_id: id of its video; in a foreign collection the value of `video_field`, or the point's id.
        path: the video file, if the collection says.
        start, end: the segment, in seconds, likewise.
        score: similarity of query and pooled vector, in the collection's own distance (cosine).
        timestamp: seconds of the frame that matches best; None without frame vectors.
        payload: everything that the collection keeps about the segment.
    """

    id: models.ExtendedPointId
    video_id: str
    path: str | None
    start: float | None
    end: float | None
    score: float
    timestamp: float | None
    payload: Mapping[str, Any] = field(repr=False, hash=False)

    def __str__(self) -> str:
        span = "" if self.start is None or self.end is None else f"  {self.start:.1f}-{self.end:.1f} s"
        best = "" if self.timestamp is None else f" (best at {self.timestamp:.1f} s)"
        return f"{self.score:.3f}  {self.path or self.video_id}{span}{best}"


def video_id(sha256: str) -> str:
    """Return the id of a video whose content has this SHA-256 (hex)."""
    return str(uuid.uuid5(_NAMESPACE, sha256))


def segment_id(video_id: str, start: float, end: float, tenant: str | None = None) -> str:
    """Return the id of the point of one segment of a video, given in seconds; each tenant has one of its own."""
    return str(uuid.uuid5(uuid.UUID(video_id), f"{start:.6f}-{end:.6f}{_of(tenant)}"))


def _of(tenant: str | None) -> str:
    return "" if tenant is None else f":{tenant}"


def segment_point(
    file: VideoFile, segment: EncodedSegment, *, segments: int | None = None, tenant: str | None = None
) -> models.PointStruct:
    """Describe one segment as a point; `segments` is how many the video has, given with its last one.

    Times are rounded to microseconds, so that they and the id come out the same from every run.
    """
    start, end = round(segment.start, 6), round(segment.end, 6)
    payload = {
        "video_id": file.video_id,
        "path": file.path,
        "start": start,
        "end": end,
        "timestamps": [round(float(t), 6) for t in segment.timestamps],
        "duration": round(segment.duration, 6),
        "fps": round(segment.fps, 6),
        "decoder": segment.decoder,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
    }
    if segments is not None:
        payload["segments"] = segments
    if tenant is not None:
        payload[TENANT] = tenant
    return models.PointStruct(
        id=segment_id(file.video_id, start, end, tenant),
        vector={POOLED: segment.vector.tolist(), FRAMES: segment.frame_vectors.tolist()},
        payload=payload,
    )


def failure_point(file: VideoFile, reason: str, *, tenant: str | None = None) -> models.PointStruct:
    """Describe a file that could not be read as a point without vectors."""
    payload = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, "failure": reason}
    if tenant is not None:
        payload[TENANT] = tenant
    point_id = uuid.uuid5(_NAMESPACE, f"failure{_of(tenant)}:{file.path}")
    return models.PointStruct(id=str(point_id), vector={}, payload=payload)
