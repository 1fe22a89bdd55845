"""List of a collection's videos and failures, read a part at a time by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from dits_adapter.serve._searcher import INGESTED
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.ranking import OURS
from dits_adapter.stores.requests import Hit, ReadRequest
from dits_adapter.stores.rows import FailureRow

__all__ = ["ListedFile", "Listing", "StoredFile", "read_listing"]

_MOST_SEGMENTS = 200_000
"""Segments that are read to list files. Of a larger collection the last one of each video is; of one that another
program made, where nothing tells the last ones, a sample of this size."""

_MOST_VIDEOS = 500_000
"""Videos that are listed, about 320 bytes each where paths have 40 characters; of more these are a sample."""

_SAMPLE = 4096
"""Segments by which gap and hubs are measured."""

_DRAWN_FROM = 4 * _SAMPLE
"""Segments from which they are drawn in a large collection, so that they are of many videos."""

_EVERY = 500


_Item = TypeVar("_Item")


class StoredFile(BaseModel):
    """Video of the collection.

    Attributes:
        name: its title, path or id.
        video: URL of the file, as in `SearchResult`.
        seconds: duration; None where the collection does not say.
        segments: segments that are there; in a collection of more than 200,000 segments those that it should have.
        expected: segments that it should have; None where the collection does not say.
    """

    video_id: str
    name: str
    video: str | None
    seconds: float | None
    segments: int
    expected: int | None


@dataclass(slots=True)
class ListedFile:
    """Video of the collection, in little memory; the fields are those of `StoredFile`."""

    video_id: str
    name: str
    playable: bool
    seconds: float | None
    segments: int = 0
    expected: int | None = None

    @classmethod
    def of(cls, hit: Hit) -> ListedFile:
        """Describe the video of a segment, without counting any."""
        seconds: Any = hit.payload.get("duration")
        return cls(
            video_id=hit.video_id,
            name=hit.title or hit.path or hit.video_id,
            playable=INGESTED in hit.payload,
            seconds=seconds if isinstance(seconds, float | int) and seconds > 0 else None,
        )

    def stored(self) -> StoredFile:
        """Return the video as `/api/collection/files` lists it."""
        return StoredFile(
            video_id=self.video_id,
            name=self.name,
            video=f"api/videos/{self.video_id}" if self.playable else None,
            seconds=self.seconds,
            segments=self.segments,
            expected=self.expected,
        )


@dataclass(frozen=True)
class Listing:
    """Files and failures of a collection.

    Attributes:
        files: videos by name.
        failures: files that failed, by path.
        counted: True where all segments were read, and so those of each video counted.
        whole: True where all videos are listed; otherwise they are a sample.
        sample: ids of some segments, drawn by a seed.
    """

    files: list[ListedFile]
    failures: list[FailureRow]
    counted: bool
    whole: bool
    sample: list[str | int] = field(repr=False)

    def seconds(self, videos: int) -> float | None:
        """Return the duration of all videos, by the mean of those that are known."""
        known = [file.seconds for file in self.files if file.seconds is not None]
        return sum(known) / len(known) * videos if known else None


def read_listing(store: VideoStore, progress: Callable[[int, int], None]) -> Listing:
    """Read the payloads of a collection, of a large one those that list its videos, and gather its files.

    Raises:
        StoreError: the collection cannot be read.
    """
    metadata = store.metadata()
    ours = metadata is not None and metadata.layout is None
    layout = (metadata and metadata.layout) or OURS
    total = store.count()
    counted = total <= _MOST_SEGMENTS
    request = ReadRequest(limit=_MOST_SEGMENTS)
    if ours and not counted:
        total, request = store.count_videos(), ReadRequest(last=True, limit=_MOST_VIDEOS)
    files: dict[str, ListedFile] = {}
    ids: list[str | int] = []
    for segment in store.read(request):
        if len(ids) % _EVERY == 0:
            progress(len(ids), min(total, request.limit or total))
        ids.append(segment.id)
        hit = Hit.of(segment.id, segment.payload, 0.0, video_id=layout.video_of(segment.payload), layout=layout)
        file = files.get(hit.video_id) or files.setdefault(hit.video_id, ListedFile.of(hit))
        file.expected = file.expected or _number(segment.payload.get("segments"))
        file.segments = (file.expected or 1) if request.last else file.segments + 1
    return Listing(
        files=sorted(files.values(), key=lambda file: (file.name, file.video_id)),
        failures=sorted(store.failures(), key=lambda failure: failure.path) if ours else [],
        counted=counted,
        whole=total <= (request.limit or total),
        sample=_draw(_segments_of_some(store, list(files.values())) if request.last else ids, _SAMPLE),
    )


def _segments_of_some(store: VideoStore, files: Sequence[ListedFile]) -> list[str | int]:
    """Return ids of the segments of some videos, drawn by a seed; in some stores the first ones are the oldest."""
    chosen: list[str] = []
    segments = 0
    for file in _draw(files, len(files), key=lambda file: file.video_id):
        if segments >= _DRAWN_FROM:
            break
        chosen.append(file.video_id)
        segments += file.segments
    return [segment.id for segment in store.read(ReadRequest(field="video_id", values=chosen))]


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _draw(items: Sequence[_Item], most: int, key: Callable[[_Item], str] = str) -> list[_Item]:
    """Draw some items by a seed, whatever order they were read in."""
    ordered = sorted(items, key=key)
    rows = np.random.default_rng(0).permutation(len(ordered))[:most]
    return [ordered[row] for row in rows]
