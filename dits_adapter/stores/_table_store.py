"""Stores that keep segments as rows of a table: everything that such databases share.

Segments are rows of one table, failures rows of a second one. A subclass of `TableStore` implements the methods
that `TableDatabase` lists.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dits_adapter._wording import validated
from dits_adapter.errors import InputError, MissingCollectionError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._table import (
    FAILURE,
    FRAMES,
    KEY,
    OURS,
    TENANT,
    WORDS,
    Condition,
    Opened,
    Row,
    Table,
    path_words,
    segment_row,
)
from dits_adapter.stores._table_database import TableDatabase
from dits_adapter.stores.base import Capabilities
from dits_adapter.stores.bias import BIAS, ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout, check_tenant
from dits_adapter.stores.ranking import first_look, nearest_search, video_filter
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import (
    FailureRow,
    SegmentRow,
    StoredSegment,
    VideoFile,
    VideoRecord,
    failure_id,
    failure_rows,
    video_records,
)
from dits_adapter.stores.text_lane import SAID, TextLane

__all__ = ["TableStore"]

_FILE = ("path", "size", "mtime_ns")

_AT_ONCE = 500
"""Greatest number of keys or values in one condition."""

_QUERIES = 64
"""Greatest number of queries in one request."""


class TableStore(TableDatabase):
    """A collection in a database of tables: what follows from the database's own words (`TableDatabase`)."""

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Abilities of the store; `frames` is of the collection, once that was opened."""
        frames = self._opened is None or self._opened.has_frames
        return Capabilities(frames=frames, tenants=True, index=True, bias=True, texts=True)

    def metadata(self) -> CollectionMetadata | None:
        """Return the description that the collection carries; None where something else made it (foreign)."""
        table = self._describe(self.name)
        if table is None:
            raise MissingCollectionError(
                f"{self.location} has no collection {self.name!r}. Ingest videos into it first."
            )
        if table.metadata is None:
            return None
        try:
            return validated(CollectionMetadata, table.metadata)
        except InputError as error:
            raise StoreError(
                f"the metadata of the collection {self.name!r} cannot be understood; a newer dits_adapter may "
                f"have written it. {error}"
            ) from error

    def create(self, metadata: CollectionMetadata, options: BaseModel | None = None) -> None:
        """Make the collection with its metadata; one that exists must be the same."""
        if options is not None:
            raise InputError(f"the store at {self.location} has no options.")
        if not self._takes_name(self.name):
            raise InputError(f"collection is {self.name!r}; a name here {self.names_in_words}.")
        metadata.require_possible()
        if self.tenant is not None and not metadata.tenants:
            raise InputError(
                f"a collection for the tenant {self.tenant!r} keeps tenants apart: its metadata say tenants=True."
            )
        if self.space is not None:
            self.space.video.require(metadata.space.video, mine="the query", theirs="the videos to be stored")
        if self._describe(self.name) is None:
            self._create(metadata)
        metadata.require_same(self.metadata(), self.name, self.tenant)
        self._opened = None

    def open(self) -> EmbeddingSpace:
        """Check the collection, once, and return the embedding space that it is searched in."""
        return self._open().space

    def _open(self) -> Opened:
        if self._opened is not None:
            return self._opened
        metadata = self.metadata()
        trusted = self.space if self._trusted else None
        space = trusted if metadata is None else metadata.space
        if space is None:
            raise StoreError(
                f"the collection {self.name!r} does not say which embedding space its vectors live in: something "
                "other than dits_adapter made it. If you know that its videos were embedded with the CLIP of your "
                "query encoder, say so once (`dits-adapter adopt`), or each time: --vector NAME --trust-foreign, "
                "in Python open_store(…, space=SPACE, layout=PointLayout(vector=NAME), trust_foreign=True)."
            )
        if self.space is not None:
            self.space.video.require(space.video, mine="the query", theirs=f"the collection {self.name!r}")
        check_tenant(metadata, self.tenant, self.name)
        ours = metadata is not None and metadata.layout is None
        layout = self._layout or (OURS if ours else metadata and metadata.layout) or PointLayout()
        table = self._described()
        table.require(layout, space, collection=self.name, whose="the queries have")
        if metadata is None:
            warnings.warn(
                f"the collection {self.name!r} does not say which embedding space it is of; it is taken to be "
                f"{space}, as you said. Only its width ({space.video.width}) could be checked.",
                stacklevel=4,
            )
        self._opened = Opened(table, layout, space, ours, None if metadata is None else metadata.bias)
        return self._opened

    def adopt(self, space: EmbeddingSpace, layout: PointLayout) -> CollectionMetadata:
        """Write beside a table of another program what its vectors and columns are; no row is changed.

        Args:
            space: the embedding space of its vectors; that it is this one cannot be checked beyond the width.
            layout: names of the columns; a vector "" is the only one that there is.

        Raises:
            InputError: a column that the table has not.
            SpaceMismatchError: the vectors are of another width than the space.
            StoreError: no such table, one of ours, or one without such a column of vectors or a key.
        """
        existing = self.metadata()
        if existing is not None and existing.layout is None:
            raise StoreError(f"the collection {self.name!r} was made by dits_adapter, and is described already.")
        table = self._described()
        table.require(layout, space, collection=self.name, whose="the encoder has")
        if not layout.vector:
            layout = layout.model_copy(update={"vector": next(iter(table.widths))})
        chosen = [getattr(layout, kind) for kind in layout.model_fields_set - {"vector", "texts"}]
        for name in [*filter(None, chosen), *layout.texts]:
            if name not in table.columns:
                columns = ", ".join(table.columns)
                raise InputError(f"the collection {self.name!r} has no column {name!r}; it has {columns}.")
        metadata = CollectionMetadata(space=space, layout=layout)
        self._write_metadata(metadata)
        self._opened = None
        return metadata

    def vector_width(self, vector: str) -> int:
        """Return the width of a vector of the table; "" is the only one that there is.

        Raises:
            StoreError: no such table, or no such vector.
        """
        self.metadata()
        return self._described().width_of(vector, self.name)

    def _described(self) -> Table:
        """Return the table of a collection that is there."""
        table = self._describe(self.name)
        assert table is not None
        return table

    def _require_ours(self) -> None:
        """Refuse to go through a collection that something else made, or without its tenant."""
        metadata = self.metadata()
        if metadata is None or metadata.layout is not None:
            raise StoreError(f"the collection {self.name!r} was made by something else than dits_adapter.")
        check_tenant(metadata, self.tenant, self.name)

    def records(self) -> list[VideoRecord]:
        """List the state of each video and of each file that failed, by reading through both tables."""
        self._require_ours()
        segments = self._select(self.name, ["video_id", "segments", *_FILE], self._scope())
        return [*video_records(segments), *self._failure_records()]

    def failures(self) -> list[FailureRow]:
        """List the files that failed, by reading through their table."""
        self._require_ours()
        return failure_rows(self._failure_records())

    def _failure_records(self) -> list[VideoRecord]:
        return video_records(self._select(self._failures, [FAILURE, *_FILE], self._scope()))

    def write(self, rows: Sequence[SegmentRow]) -> None:
        """Store segments durably; those of the same id are replaced."""
        columns = self._open().table.columns
        described = [segment_row(row, self.tenant) for row in rows]
        if SAID not in columns:  # of an earlier version
            described = [{name: value for name, value in row.items() if name != SAID} for row in described]
        self._upsert(self.name, described)

    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        """Remember files that gave no frames; one failure a path."""
        failures = [
            {
                KEY: failure_id(row.path, self.tenant),
                "path": row.path,
                "size": row.size,
                "mtime_ns": row.mtime_ns,
                FAILURE: row.reason,
                TENANT: self.tenant,
            }
            for row in rows
        ]
        self._upsert(self._failures, failures)

    def delete(self, records: Sequence[VideoRecord]) -> None:
        """Delete all segments of these videos, and these failures."""
        videos = [record.video_id for record in records if not record.failure]
        paths = [record.path for record in records if record.failure]
        for part in _parts(videos):
            self._delete(self.name, self._scope().with_any("video_id", part))
        for part in _parts(paths):
            self._delete(self._failures, self._scope().with_any("path", part))

    def update_path(self, file: VideoFile) -> None:
        """Write down that the stored video `file.video_id` now lies at `file.path`, with its size and time."""
        values = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, WORDS: path_words(file.path)}
        self._update(self._scope().with_any("video_id", [file.video_id]), values)

    def find(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Search for checked queries, (n, d) float32, many in one request; which have too few videos, again."""
        opened = self._open()
        if request.rerank is not None and not opened.has_frames:
            raise StoreError(f"the collection {self.name!r} has no frame vectors to re-rank with.")
        condition = opened.matching(video_filter(request), self._scope(), self.name)
        group = opened.layout.video or opened.table.key
        first = first_look(request, opened.bias)

        def search(query: NDArray[np.float32], looked: list[tuple[float, Row]]) -> list[Hit]:
            def nearest(
                number: int, videos: Sequence[str | int] | None
            ) -> tuple[list[tuple[float, StoredSegment]], bool]:
                if videos is None and number == first:
                    rows = looked
                else:
                    chosen = condition if videos is None else condition.with_any(group, videos)
                    (rows,) = self._nearest(query[None], opened, chosen, number, request.exact)
                keyed = [(score, row) for score, row in rows if row[opened.table.key] is not None]
                return [(score, opened.segment(row)) for score, row in keyed], len(rows) < number

            return nearest_search(query, request, nearest, self._framed, bias=opened.bias, layout=opened.layout)

        units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        parts = [units[start : start + _QUERIES] for start in range(0, len(units), _QUERIES)]
        return [
            search(query, looked)
            for part in parts
            for query, looked in zip(
                part, self._nearest(part, opened, condition, first, request.exact), strict=True
            )
        ]

    def _framed(self, segments: Sequence[StoredSegment]) -> list[StoredSegment]:
        opened = self._open()
        frames: dict[str | int, Any] = {}
        if opened.has_frames:
            for part in _parts([segment.id for segment in segments]):
                rows = self._select(self.name, [KEY, FRAMES], Condition(among={KEY: part}))
                frames.update((row[KEY], opened.frames(row[FRAMES])) for row in rows)
        return [replace(segment, frame_vectors=frames.get(segment.id)) for segment in segments]

    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        """Read stored segments of the store's tenant, in any order; those that are not there are left out."""
        opened = self._open()
        scope = self._scope()
        if request.last:
            if not opened.ours:
                return iter(())
            scope = replace(scope, present=("segments",))
        columns = opened.payload
        if request.vectors:
            columns = [*columns, opened.vector]
        if request.frames and opened.has_frames:
            columns = [*columns, FRAMES]
        rows = (
            row
            for part in request.parts(_AT_ONCE)
            for condition in opened.requested(part, scope)
            for row in self._select(self.name, columns, condition, request.limit)
            if row[opened.table.key] is not None
        )
        return map(opened.segment, islice(rows, request.limit))

    def count(self) -> int:
        """Return the number of segments of the store's tenant."""
        self._open()
        return self._count(self._scope())

    def count_videos(self) -> int:
        """Return the number of whole videos; in a table of another program, by its column of videos."""
        opened = self._open()
        if opened.ours:
            return self._count(replace(self._scope(), present=("segments",)))
        segments, column = self.count(), opened.layout.video
        if column is None or column not in opened.table.columns:
            return segments
        if (videos := opened.videos.of(segments)) is not None:
            return videos
        return opened.videos.keep(segments, self._count_distinct(column))

    def set_bias(self, bias: ScoreBias | None) -> None:
        """Write down the record of the score bias; None takes it away, with the biases of all segments."""
        self._keep_beside(BIAS, bias=bias)

    def set_texts(self, texts: TextLane | None) -> None:
        """Write down the record of the texts beside segments; None takes it away, with all of them."""
        self._keep_beside(SAID, texts=texts)

    def _keep_beside(self, column: str, **record: ScoreBias | TextLane | None) -> None:
        """Write a record of the metadata; None empties the column that it is of."""
        metadata = self.metadata()
        if metadata is None or metadata.layout is not None:
            instead = " A query bank (`dits-adapter bank`) needs no column." if column == BIAS else ""
            raise StoreError(
                f"the collection {self.name!r} is of another program: its table gets no {column!r}.{instead}"
            )
        table = self._describe(self.name)
        has_column = table is not None and column in table.columns
        if not has_column and None not in record.values():
            raise StoreError(
                f"the collection {self.name!r} was made by an earlier version, without the column {column!r}. "
                "Copy it to a new one (dits-adapter copy)."
            )
        self._write_metadata(metadata.model_copy(update=record))
        if has_column and None in record.values():
            self._update(Condition(present=(column,)), {column: None})
        self._opened = None

    def write_biases(self, biases: Mapping[str | int, float]) -> None:
        """Keep b(v) beside the segments with these ids."""
        if biases:
            self._assign(BIAS, biases)

    def write_texts(self, texts: Mapping[str | int, str | None]) -> None:
        """Keep texts beside the segments with these ids; None takes one away."""
        if texts:
            self._assign(SAID, texts)


def _parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(values)
    while part := list(islice(iterator, _AT_ONCE)):
        yield part
