"""Rows of a store: segments, failures and videos as any database keeps them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import shown_repr
from dits_adapter.stores.bias import BIAS

if TYPE_CHECKING:
    from dits_adapter.video.encoder import EncodedSegment

__all__ = [
    "FailureRow",
    "SegmentRow",
    "StoredSegment",
    "VideoFile",
    "VideoRecord",
    "failure_id",
    "failure_rows",
    "segment_id",
    "video_id_of",
    "video_records",
]


_NAMESPACE = uuid.UUID("5d0f6c52-6f0e-5f0c-9d3c-1f7c0b7a4e21")


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file on disk, and the identity of its content.

    Attributes:
        path: absolute.
        size: in bytes.
        mtime_ns: modification time, in nanoseconds.
        video_id: UUID made from the content (`video_id_of`); empty where the content was not read.
    """

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""


@dataclass(slots=True)
class VideoRecord:
    """State of one video in a collection, or of one file that could not be read.

    Attributes:
        path, size, mtime_ns: path, size and modification time of the file when it was read.
        video_id: video id of its content; empty for a failure.
        failure: the reason why a file gave no frames; empty for a video.
        found: segments that are stored.
        expected: segments that the video has; -1 while its last one is missing.
    """

    path: str
    size: int
    mtime_ns: int
    video_id: str = ""
    failure: str = ""
    found: int = 0
    expected: int = -1

    @property
    def complete(self) -> bool:
        """True if all segments of the video are stored."""
        return self.found == self.expected

    def is_of(self, file: VideoFile) -> bool:
        """Return whether the record is of `file`, by its name, size and modification time."""
        return (self.path, self.size, self.mtime_ns) == (file.path, file.size, file.mtime_ns)

    def settles(self, file: VideoFile, *, retry_failed: bool) -> bool:
        """Return whether `file` need not be read: it is stored whole, or failed and is not to be tried again."""
        return self.is_of(file) and (not retry_failed if self.failure else self.complete)


@dataclass(frozen=True, eq=False)
class SegmentRow:
    """Row of one segment of a video, as ingestion produces it and any store can keep it.

    Times are rounded to microseconds, so that they and the id come out the same from every run.

    Attributes:
        id: UUID made from content, span and tenant: storing a segment twice is storing it once.
        video_id: UUID made from the file's content: a renamed file keeps its id.
        path: absolute path of the file.
        start, end: the segment, in seconds from the first frame.
        timestamps: timestamps of the frames, in seconds.
        duration, fps: duration and frame rate of the whole video.
        decoder: decoder that read the segment.
        size, mtime_ns: size and modification time of the file when it was read.
        segments: number of segments of the video, on the last segment; None on the others.
        vector: pooled vector, (d,) float32 of unit norm.
        frame_vectors: (n, d) float32 of unit norm.
        bias: b(v) of the collection's score bias; None without one.
    """

    id: str
    video_id: str
    path: str
    start: float
    end: float
    timestamps: tuple[float, ...]
    duration: float
    fps: float
    decoder: str
    size: int
    mtime_ns: int
    segments: int | None
    vector: NDArray[np.float32] = field(repr=False)
    frame_vectors: NDArray[np.float32] = field(repr=False)
    bias: float | None = None

    __repr__ = shown_repr

    @classmethod
    def of(
        cls, file: VideoFile, segment: EncodedSegment, *, segments: int | None = None, tenant: str | None = None
    ) -> SegmentRow:
        """Describe an encoded segment of a file; `segments` is how many the video has, given with its last one."""
        start, end = round(segment.start, 6), round(segment.end, 6)
        return cls(
            id=segment_id(file.video_id, start, end, tenant),
            video_id=file.video_id,
            path=file.path,
            start=start,
            end=end,
            timestamps=tuple(round(float(t), 6) for t in segment.timestamps),
            duration=round(segment.duration, 6),
            fps=round(segment.fps, 6),
            decoder=segment.decoder,
            size=file.size,
            mtime_ns=file.mtime_ns,
            segments=segments,
            vector=segment.vector,
            frame_vectors=segment.frame_vectors,
        )

    def payload(self) -> dict[str, Any]:
        """Return all fields but the id and the vectors, ready for JSON.

        `segments` is there only on the last segment, and the bias only where there is one.
        """
        payload = {name: getattr(self, name) for name in _PAYLOAD}
        payload["timestamps"] = list(self.timestamps)
        if self.segments is None:
            del payload["segments"]
        if self.bias is not None:
            payload[BIAS] = self.bias
        return payload


_PAYLOAD = [f.name for f in fields(SegmentRow) if f.name not in ("id", "vector", "frame_vectors", "bias")]


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A file that gave no frames, remembered so that it is not decoded in vain again.

    Attributes:
        path, size, mtime_ns: path, size and modification time of the file.
        reason: one clause saying what is wrong with it.
    """

    path: str
    size: int
    mtime_ns: int
    reason: str


@dataclass(frozen=True, eq=False)
class StoredSegment:
    """A segment as it was read from a store.

    Attributes:
        id: id of the segment in its store.
        payload: fields of the segment in the store.
        vector: pooled vector, (d,) float32; None where it was not asked for or is not there.
        frame_vectors: (n, d) float32; likewise.
    """

    id: str | int
    payload: Mapping[str, Any]
    vector: NDArray[np.float32] | None = None
    frame_vectors: NDArray[np.float32] | None = None

    __repr__ = shown_repr


def video_records(payloads: Iterable[Mapping[str, Any]]) -> list[VideoRecord]:
    """Gather the state of each video from the payloads of its segments (`SegmentRow.payload`).

    A payload with the key `failure`, whose value is the reason, is that of a failure; one that ingestion did not
    write is left out. A value of None is none, as in a table whose rows have all columns.
    """
    videos: dict[str, VideoRecord] = {}
    failures: list[VideoRecord] = []
    for payload in payloads:
        if not payload.keys() >= {"path", "size", "mtime_ns"}:
            continue
        file = (payload["path"], payload["size"], payload["mtime_ns"])
        if payload.get("failure") is not None:
            failures.append(VideoRecord(*file, failure=payload["failure"]))
        elif payload.get("video_id") is not None:
            record = videos.setdefault(payload["video_id"], VideoRecord(*file, video_id=payload["video_id"]))
            record.found += 1
            segments = payload.get("segments")
            record.expected = record.expected if segments is None else segments
    return [*videos.values(), *failures]


def failure_rows(records: Iterable[VideoRecord]) -> list[FailureRow]:
    """Return the failures among records."""
    return [FailureRow(each.path, each.size, each.mtime_ns, each.failure) for each in records if each.failure]


def video_id_of(sha256: str) -> str:
    """Return the id of a video whose content has this SHA-256 (hex)."""
    return str(uuid.uuid5(_NAMESPACE, sha256))


def segment_id(video_id: str, start: float, end: float, tenant: str | None = None) -> str:
    """Return the id of one segment of a video, given in seconds; each tenant has one of its own."""
    return str(uuid.uuid5(uuid.UUID(video_id), f"{start:.6f}-{end:.6f}{_suffix(tenant)}"))


def failure_id(path: str, tenant: str | None = None) -> str:
    """Return the id under which a store that has only rows with ids remembers the failure of a file."""
    return str(uuid.uuid5(_NAMESPACE, f"failure{_suffix(tenant)}:{path}"))


def _suffix(tenant: str | None) -> str:
    return "" if tenant is None else f":{tenant}"
