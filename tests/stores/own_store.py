"""A store over SQLite, as a user of the package would write it: `register_store` alone makes it known."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.ranking import exact_search
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import FailureRow, SegmentRow, StoredSegment, VideoFile, VideoRecord, video_records


class SqliteStore(VideoStore):
    capabilities = Capabilities(frames=True)

    def __init__(self, location: str, collection: str = "videos", *, space: EmbeddingSpace | None = None) -> None:
        self.location, self.name, self.space = location, collection, space

    def _run(self, sql: str, rows: Sequence[Sequence[Any]] = ((),)) -> list[Any]:
        """Execute a statement with each of these rows of values, and return all answers."""
        with sqlite3.connect(self.location.removeprefix("sqlite://")) as database:
            database.execute("CREATE TABLE IF NOT EXISTS collections (name PRIMARY KEY, metadata)")
            columns = "collection, id, video, payload, vector, frames, PRIMARY KEY (collection, id)"
            database.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
            return [answer for row in rows for answer in database.execute(sql, row).fetchall()]

    def metadata(self) -> CollectionMetadata | None:
        found = self._run("SELECT metadata FROM collections WHERE name = ?", [(self.name,)])
        if not found:
            raise StoreError(f"{self.location} has no collection {self.name!r}.")
        return CollectionMetadata.model_validate_json(found[0][0])

    def create(self, metadata: CollectionMetadata, options: Any = None) -> None:
        if options is not None:
            raise InputError("SQLite has no options.")
        metadata.require_possible()
        if self.space is not None:
            self.space.require(metadata.space, mine="the query", theirs="the videos to be stored")
        self._run("INSERT OR IGNORE INTO collections VALUES (?, ?)", [(self.name, metadata.model_dump_json())])
        metadata.require_same(self.metadata(), self.name)

    def records(self) -> list[VideoRecord]:
        self.metadata()
        payloads = self._run("SELECT payload FROM rows WHERE collection = ?", [(self.name,)])
        return video_records(json.loads(payload) for (payload,) in payloads)

    def _insert(self, rows: Sequence[tuple[str, str, dict[str, Any], bytes | None, bytes | None]]) -> None:
        values = [(self.name, id, video, json.dumps(payload), *vectors) for id, video, payload, *vectors in rows]
        self._run("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)", values)

    def write(self, rows: Sequence[SegmentRow]) -> None:
        self._insert(
            [(r.id, r.video_id, r.payload(), r.vector.tobytes(), r.frame_vectors.tobytes()) for r in rows]
        )

    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        payloads = [{"path": r.path, "size": r.size, "mtime_ns": r.mtime_ns, "failure": r.reason} for r in rows]
        self._insert([(f"failure {payload['path']}", "", payload, None, None) for payload in payloads])

    def delete(self, records: Sequence[VideoRecord]) -> None:
        keys = [(self.name, f"failure {r.path}" if r.failure else r.video_id) for r in records]
        self._run("DELETE FROM rows WHERE collection = ? AND ? IN (id, video)", keys)

    def update_path(self, file: VideoFile) -> None:
        change = "json_set(payload, '$.path', ?, '$.size', ?, '$.mtime_ns', ?)"
        sql = f"UPDATE rows SET payload = {change} WHERE collection = ? AND video = ?"
        self._run(sql, [(file.path, file.size, file.mtime_ns, self.name, file.video_id)])

    def find(self, queries: np.ndarray, request: SearchRequest) -> list[list[Hit]]:
        segments = list(self.read(ReadRequest()))
        return [exact_search(query, segments, request) for query in queries]

    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        sql = "SELECT id, payload, vector, frames FROM rows WHERE collection = ? AND vector IS NOT NULL"
        segments = (self._segment(*row) for row in self._run(sql, [(self.name,)]))
        return islice((s for s in segments if request.chooses(s.id, s.payload)), request.limit)

    def _segment(self, id: str, payload: str, vector: bytes, frames: bytes) -> StoredSegment:
        pooled = np.frombuffer(vector, np.float32)
        return StoredSegment(
            id, json.loads(payload), pooled, np.frombuffer(frames, np.float32).reshape(-1, len(pooled))
        )

    def count(self) -> int:
        return len(list(self.read(ReadRequest())))

    def count_videos(self) -> int:
        return sum(record.complete for record in self.records())
