"""Video segments in LanceDB: a folder or an object storage, searched in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, reduce
from operator import and_, or_
from typing import Any, ClassVar

import lancedb
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from lancedb.expr import Expr, col, lit
from lancedb.index import BTree, IvfHnswSq
from numpy.typing import NDArray

from dits_adapter.errors import DITSError, StoreError
from dits_adapter.stores._table import FAILURES, FRAMES, KEY, SEGMENTS, VECTOR, Condition, Opened, Row, Table
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.metadata import CollectionMetadata

__all__ = ["LanceDBStore"]

_METADATA = b"dits_adapter"
"""Key of the collection's metadata in those of its column of vectors."""

_TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "floats": pa.list_(pa.float64())}
_PAGE = 512
_INDEXED = 10_000
"""Segments from which a search follows an index: below, comparing with all takes some milliseconds."""

_WRITES = 256
"""Writes after which the files that they made are put together."""


class LanceDBStore(TableStore):
    """A collection of video segments in LanceDB.

    Args:
        location: `lancedb://` and a folder, or an address that LanceDB knows: `lancedb://s3://bucket/videos`.
        collection: name of the collection, a table.
        space, layout, trust_foreign, tenant: as `QdrantStore`; names of a layout are those of columns.
    """

    names: ClassVar = re.compile(r"[A-Za-z0-9_.-]{1,200}")
    names_in_words: ClassVar = "is made of letters, digits, dots, hyphens and underscores, 200 at most"

    _written = 0

    def close(self) -> None:
        """Forget the opened files."""
        self._opened = None
        self.__dict__.pop("_database", None)

    @property
    def _place(self) -> str:
        return self._address.partition("://")[2]

    @cached_property
    def _database(self) -> Any:
        return lancedb.connect(self._place, read_consistency_interval=timedelta(0))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except DITSError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(f"{self.location}: {cause}") from error

    def _table(self, name: str) -> Any:
        with self._translating():
            return self._database.open_table(name)

    def _describe(self, name: str) -> Table | None:
        if "://" not in self._place and not os.path.isdir(self._place):
            return None  # connecting would make the folder
        with self._translating():
            try:
                schema = self._database.open_table(name).schema
            except ValueError as error:
                if "not found" in str(error) or not self.names.fullmatch(name):
                    return None
                raise
        described = [(field.metadata or {}).get(_METADATA) for field in schema]
        return Table(
            columns={field.name: _kind(field.type) for field in schema},
            widths={field.name: field.type.list_size for field in schema if _kind(field.type) == "vector"},
            key=KEY,
            metadata=next((text.decode() for text in described if text), None),
        )

    def _create(self, metadata: CollectionMetadata) -> None:
        key = pa.field(KEY, pa.string(), nullable=False)
        vector = pa.list_(pa.float32(), metadata.space.video.width)
        described = {_METADATA: metadata.model_dump_json().encode()}
        segments = [
            key,
            *(pa.field(name, _TYPES[kind]) for name, kind in SEGMENTS.items()),
            pa.field(FRAMES, pa.list_(vector)),
            pa.field(VECTOR, vector, metadata=described),
        ]
        failures = [key, *(pa.field(name, _TYPES[kind]) for name, kind in FAILURES.items())]
        with self._translating():
            for name, fields in ((self._failures, failures), (self.name, segments)):
                self._database.create_table(name, schema=pa.schema(fields), exist_ok=True)

    def _write_metadata(self, metadata: CollectionMetadata) -> None:
        column = VECTOR if metadata.layout is None else metadata.layout.vector
        schema = self._table(self.name).schema
        texts: dict[str, str | None] = {f.name: None for f in schema if _METADATA in (f.metadata or {})}
        texts[column] = metadata.model_dump_json()
        with self._translating():
            self._table(self.name).update_field_metadata(
                *({"path": name, "metadata": {_METADATA.decode(): text}} for name, text in texts.items())
            )

    def _upsert(self, name: str, rows: Sequence[Row]) -> None:
        table = self._table(name)
        values = [row | ({FRAMES: list(row[FRAMES])} if FRAMES in row else {}) for row in rows]
        with self._translating():
            merge = table.merge_insert(KEY).when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_pylist(values, schema=table.schema))
            self._written += 1
            if self._written % _WRITES == 0:
                table.optimize()

    def _update(self, condition: Condition, values: Row) -> None:
        with self._translating():
            self._table(self.name).update(where=_expression(condition), values=values)

    def _assign(self, column: str, values: Mapping[str | int, Any]) -> None:
        table = self._table(self.name)
        rows = {KEY: list(values), column: list(values.values())}
        schema = pa.schema([table.schema.field(name) for name in rows])
        with self._translating():
            table.merge_insert(KEY).when_matched_update_all().execute(pa.table(rows, schema=schema))

    def _delete(self, name: str, condition: Condition) -> None:
        expression = _expression(condition)
        assert expression is not None
        with self._translating():
            self._table(name).delete(expression)

    def _select(
        self, name: str, columns: Sequence[str], condition: Condition, limit: int | None = None
    ) -> Iterator[Row]:
        with self._translating():
            query = self._table(name).search().select(list(columns)).limit(limit)
            if (expression := _expression(condition)) is not None:
                query = query.where(expression)
            for batch in query.to_batches(_PAGE):
                yield from _rows(batch)

    def _nearest(
        self, queries: NDArray[np.float32], opened: Opened, condition: Condition, number: int, exact: bool
    ) -> list[list[tuple[float, Row]]]:
        table = self._table(self.name)
        with self._translating():
            search = table.search(list(queries), vector_column_name=opened.vector).distance_type("cosine")
            search = search.select([*opened.payload, "_distance"]).limit(number)
            if (expression := _expression(condition)) is not None:
                search = search.where(expression, prefilter=True)
            if not exact and self._indexed(table, opened.vector):
                nearest = _scored(search.refine_factor(2).to_arrow(), len(queries))
                if all(len(rows) == number for rows in nearest):
                    return nearest
            return _scored(search.bypass_vector_index().to_arrow(), len(queries))

    def _indexed(self, table: Any, vector: str) -> bool:
        """Return whether searches by cosine can follow an index; another program may have made one of L2."""
        names = [index.name for index in table.list_indices() if list(index.columns) == [vector]]
        return any(table.index_stats(name).distance_type == "cosine" for name in names)

    def _count(self, condition: Condition) -> int:
        expression = _expression(condition)
        with self._translating():
            return int(self._table(self.name).count_rows(None if expression is None else expression.to_sql()))

    def finish(self) -> None:
        """Put the written files together, and index the segments, once they are many."""
        table = self._table(self.name)
        with self._translating():
            if table.count_rows() >= _INDEXED and not self._indexed(table, VECTOR):
                table.create_index(VECTOR, config=IvfHnswSq(distance_type="cosine"))
                for column in (KEY, "video_id"):
                    table.create_index(column, config=BTree())
            table.optimize()


def _kind(of: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(of) and pa.types.is_floating(of.value_type):
        return "vector"
    if pa.types.is_list(of) and pa.types.is_floating(of.value_type):
        return "floats"
    if pa.types.is_string(of) or pa.types.is_large_string(of):
        return "text"
    if pa.types.is_integer(of):
        return "int"
    return "float" if pa.types.is_floating(of) else "other"


def _rows(batch: pa.RecordBatch | pa.Table) -> Iterator[Row]:
    """Yield the rows of a batch, vectors as arrays."""
    plain, arrays = [], {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == FRAMES or _kind(column.type) == "vector":
            arrays[name] = column
        else:
            plain.append(name)
    for n, row in enumerate(batch.select(plain).to_pylist()):
        for name, column in arrays.items():
            row[name] = _array(column[n])
        yield row


def _scored(table: pa.Table, queries: int) -> list[list[tuple[float, Row]]]:
    """Return for each query its rows with their cosines; those without a vector have none."""
    scored: list[list[tuple[float, Row]]] = [[] for _ in range(queries)]
    for row in _rows(table):
        query, distance = row.pop("query_index", 0), row.pop("_distance")
        if distance is not None:
            scored[query].append((1.0 - distance, row))
    return scored


def _array(value: Any) -> NDArray[np.float32] | None:
    if not value.is_valid:
        return None
    vectors = value.values
    if pa.types.is_fixed_size_list(vectors.type):  # of frames
        vectors = vectors.flatten()
    return np.asarray(vectors.to_numpy(), np.float32)


def _expression(condition: Condition) -> Expr | None:
    """Return a condition in LanceDB's own terms; None where every row meets it."""
    parts = [col(name).isin([lit(value) for value in values]) for name, values in condition.among.items()]
    for text in condition.contains:
        parts.append(reduce(or_, [col(name).contains(lit(text)) for name in condition.texts]))
    parts += [col(name) >= lit(float(bound)) for name, bound in condition.least.items()]
    parts += [col(name) <= lit(float(bound)) for name, bound in condition.most.items()]
    parts += [col(name) == col(name) for name in condition.present]  # null is equal to nothing
    return reduce(and_, parts) if parts else None
