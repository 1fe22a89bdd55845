"""A store in this process's memory: exact, gone with the process, and the shortest example of a `VideoStore`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dits_adapter.errors import InputError, MissingCollectionError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.ranking import exact_search
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import FailureRow, SegmentRow, StoredSegment, VideoFile, VideoRecord, video_records
from dits_adapter.stores.text_lane import SAID, TextLane

__all__ = ["MemoryStore"]


class MemoryStore(VideoStore):
    """A collection in a dictionary.

    Args:
        name: name of the collection, for messages.
        space: the embedding space of the queries; if given, videos of another one are refused.
    """

    capabilities = Capabilities(frames=True, bias=True, texts=True)
    location = "memory"

    def __init__(self, name: str = "videos", *, space: EmbeddingSpace | None = None) -> None:
        self.name = name
        self.space = space
        self._metadata: CollectionMetadata | None = None
        self._rows: dict[str, SegmentRow] = {}
        self._failures: dict[str, FailureRow] = {}
        self._texts: dict[str | int, str] = {}

    @property
    def place(self) -> MemoryStore:
        """The store itself: another one is another place, whatever its name."""
        return self

    def metadata(self) -> CollectionMetadata:
        """Return how the vectors were made."""
        if self._metadata is None:
            raise MissingCollectionError(
                f"the collection {self.name!r} is not there. Ingest videos into it first."
            )
        return self._metadata

    def create(self, metadata: CollectionMetadata, options: BaseModel | None = None) -> None:
        """Record the collection metadata; a second call must bring the same."""
        if options is not None:
            raise InputError("a collection in memory has no options.")
        metadata.require_possible()
        if self.space is not None:
            self.space.video.require(metadata.space.video, mine="the query", theirs="the videos to be stored")
        metadata.require_same(self._metadata or metadata, self.name)
        self._metadata = self._metadata or metadata

    def records(self) -> list[VideoRecord]:
        """List the state of each video and of each file that failed."""
        failures = [VideoRecord(f.path, f.size, f.mtime_ns, failure=f.reason) for f in self._failures.values()]
        return [*video_records(row.payload() for row in self._rows.values()), *failures]

    def write(self, rows: Sequence[SegmentRow]) -> None:
        """Store segments; those of the same id are replaced."""
        self._rows |= {row.id: row for row in rows}

    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        """Remember files that gave no frames."""
        self._failures |= {row.path: row for row in rows}

    def delete(self, records: Sequence[VideoRecord]) -> None:
        """Delete videos and failures."""
        videos = {record.video_id for record in records if not record.failure}
        self._rows = {id: row for id, row in self._rows.items() if row.video_id not in videos}
        for record in records:
            if record.failure:
                self._failures.pop(record.path, None)

    def update_path(self, file: VideoFile) -> None:
        """Write down where a stored video lies now."""
        of_video = [row for row in self._rows.values() if row.video_id == file.video_id]
        self.write([replace(r, path=file.path, size=file.size, mtime_ns=file.mtime_ns) for r in of_video])

    def find(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Compare each query with every segment."""
        segments = list(self.read(ReadRequest(vectors=True, frames=True)))
        return [exact_search(query, segments, request, self.metadata().bias) for query in queries]

    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        """Read stored segments, vectors included, in the order in which they were stored."""
        said = {id: {SAID: text} for id, text in self._texts.items()}
        payloads = ((r, r.payload() | said.get(r.id, {})) for r in self._rows.values())
        stored = (StoredSegment(r.id, payload, r.vector, r.frame_vectors) for r, payload in payloads)
        return islice((s for s in stored if request.chooses(s.id, s.payload)), request.limit)

    def set_bias(self, bias: ScoreBias | None) -> None:
        """Write down the score bias, or take it away."""
        self._metadata = self.metadata().model_copy(update={"bias": bias})
        if bias is None:
            self.write([replace(row, bias=None) for row in self._rows.values()])

    def write_biases(self, biases: Mapping[str | int, float]) -> None:
        """Keep the biases of segments."""
        self.write([replace(row, bias=biases[id]) for id, row in self._rows.items() if id in biases])

    def set_texts(self, texts: TextLane | None) -> None:
        """Write down the record of the texts, or take it away with them."""
        self._metadata = self.metadata().model_copy(update={"texts": texts})
        if texts is None:
            self._texts = {}

    def write_texts(self, texts: Mapping[str | int, str | None]) -> None:
        """Keep texts beside segments, or take them away."""
        kept: dict[str | int, str | None] = {**self._texts, **texts}
        self._texts = {id: text for id, text in kept.items() if text is not None and id in self._rows}

    def count(self) -> int:
        """Return the number of segments."""
        return len(self._rows)

    def count_videos(self) -> int:
        """Return the number of whole videos."""
        return sum(record.complete for record in self.records())
