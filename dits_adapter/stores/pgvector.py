"""Video segments in PostgreSQL with the extension pgvector."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from dits_adapter._secrets import secret
from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._pgvector_sql import KINDS, column_of, columns_of, names_of, to_row, to_value, where_of
from dits_adapter.stores._table import FAILURES, FRAMES, KEY, SEGMENTS, VECTOR, Condition, Opened, Row, Table
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.base import Capabilities
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout

__all__ = ["PgVectorStore"]

T = TypeVar("T")

_METADATA = Identifier("dits_adapter")
"""Table of the metadata of all collections of a schema."""

_PAGE = 500
_INDEXED = 10_000
"""Segments from which a search follows an index: below, comparing with all takes some milliseconds."""

_WIDEST = 2000
"""Greatest width of vectors that pgvector indexes."""

_LEAST_EF = 100
"""Candidates of a search in an index, at least: with pgvector's own 40 one video in ten is missed."""

_EDGES = 512
"""Bytes of memory that a segment's edges take in an index that is built, about."""

_MOST_MEMORY = 2 << 20
"""Greatest memory that PostgreSQL may take to build an index, in kilobytes; beyond it the disk is used, ten times
slower.
"""

_PATIENCE = 30.0

_FAILED = "_failures"
"""End of the name of a table of failures."""

_LONGEST = 63 - len(_FAILED)
"""Greatest length of the name of a collection, in bytes."""


class PgVectorStore(TableStore):
    """A collection of video segments in PostgreSQL with pgvector 0.8 or newer.

    Args:
        location: `postgresql://user@host/database`, as libpq reads it. A password is better kept in the
            environment variable PGPASSWORD, in the file of PGPASSWORD_FILE or in `~/.pgpass`; in the address it is
            not shown again.
        collection: name of the collection, a table.
        space, layout, trust_foreign, tenant: as `QdrantStore`; names of a layout are those of columns.
        patience: seconds for which a lost connection is made anew, and what it was used for is done again.
    """

    names: ClassVar = re.compile(r"(?!dits_adapter$)[^\x00]+")
    names_in_words: ClassVar = f"has 1 to {_LONGEST} bytes in UTF-8, and is not dits_adapter"

    def __init__(
        self,
        location: str,
        collection: str = "videos",
        *,
        space: EmbeddingSpace | None = None,
        layout: PointLayout | None = None,
        trust_foreign: bool = False,
        tenant: str | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(
            location, collection, space=space, layout=layout, trust_foreign=trust_foreign, tenant=tenant
        )
        self._patience = _PATIENCE if patience is None else patience
        if not self._patience >= 0:
            raise InputError(f"patience is {patience}; it is a number of seconds, 0 or more.")
        self._connection: psycopg.Connection[Row] | None = None
        self._reached = False

    def _takes_name(self, name: str) -> bool:
        """Return whether a collection may have a name: PostgreSQL cuts longer ones, and that of its failures."""
        return super()._takes_name(name) and _bytes(name) <= _LONGEST

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Abilities of the store; `frames` is of the collection, once that was opened."""
        return replace(super().capabilities, remote=True)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._opened = None

    def _connect(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._with_password(),
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=10,
                prepare_threshold=None,  # a prepared search would keep the plan of an earlier one, index and all
            )
            self._know_vectors(self._connection)
            self._reached = True
        return self._connection

    def _with_password(self) -> str:
        """Return the address with the password of the environment, unless it has one: libpq reads no such file."""
        password = secret("PGPASSWORD")
        if password is None or "password" in conninfo_to_dict(self._address):
            return self._address
        return make_conninfo(self._address, password=password)

    def _know_vectors(self, connection: psycopg.Connection[Row]) -> None:
        row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        if row is not None:
            version = row["extversion"]
            if tuple(map(int, version.split(".")[:2])) < (0, 8):
                raise StoreError(f"{self.location} has pgvector {version}; 0.8 or newer is needed.")
            register_vector(connection)

    def _run(self, work: Callable[[psycopg.Connection[Row]], T], *, at_once: bool = False) -> T:
        """Do work in one transaction; on a lost connection do all of it again.

        Args:
            work: function that executes statements.
            at_once: send the statements together, without waiting for the answer to each.
        """
        end: float | None = None
        with self._lock:
            while True:
                try:
                    connection = self._connect()
                    with connection.pipeline() if at_once else nullcontext(), connection.transaction():
                        return work(connection)
                except (psycopg.Error, UnicodeError) as error:
                    lost = self._connection is None or self._connection.closed
                    end = time.monotonic() + self._patience if end is None else end
                    if not (self._reached and lost) or time.monotonic() > end:
                        cause = str(error).strip().partition("\n")[0] or type(error).__name__
                        raise StoreError(f"{self.location}: {cause}") from error
                    time.sleep(0.2)

    def _execute(self, statement: SQL | Composed, values: Sequence[Any] = ()) -> list[Row]:
        def work(connection: psycopg.Connection[Row]) -> list[Row]:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

        return self._run(work)

    def _describe(self, name: str) -> Table | None:
        if _bytes(name) > _LONGEST + len(_FAILED):
            return None  # what it is cut to may be another table
        columns = self._execute(
            SQL(
                "SELECT attname AS name, format_type(atttypid, NULL) AS type, atttypmod AS width, "
                "COALESCE((SELECT indkey[0] = attnum AND indnkeyatts = 1 FROM pg_index "
                "WHERE indrelid = attrelid AND indisprimary), false) AS key "
                "FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 "
                "AND NOT attisdropped ORDER BY attnum"
            ),
            [name],
        )
        if not columns:
            return None
        described: list[Row] = []
        if self._execute(SQL("SELECT to_regclass('dits_adapter') AS it"))[0]["it"] is not None:
            described = self._execute(
                SQL("SELECT metadata::text AS it FROM {} WHERE collection = %s").format(_METADATA), [name]
            )
        kinds = {column["name"]: KINDS.get(column["type"].rpartition(".")[2], "other") for column in columns}
        vectors = [column for column in columns if kinds[column["name"]] == "vector"]
        widths = {
            c["name"]: c["width"] if c["width"] > 0 else self._stored_width(name, c["name"]) for c in vectors
        }
        return Table(
            columns=kinds,
            widths={column: width for column, width in widths.items() if width is not None},
            key=next((column["name"] for column in columns if column["key"]), KEY),
            metadata=described[0]["it"] if described else None,
        )

    def _stored_width(self, name: str, column: str) -> int | None:
        """Return the width of the vectors in a column that declares none; None where it is empty."""
        statement = SQL("SELECT vector_dims({0}) AS it FROM {1} WHERE {0} IS NOT NULL LIMIT 1")
        rows = self._execute(statement.format(Identifier(column), Identifier(name)))
        return int(rows[0]["it"]) if rows else None

    def _create(self, metadata: CollectionMetadata) -> None:
        vector = SQL("vector({})").format(SQL(str(int(metadata.space.video.width))))
        segments = [*columns_of(SEGMENTS), column_of(FRAMES, SQL("bytea")), column_of(VECTOR, vector)]
        create = SQL("CREATE TABLE IF NOT EXISTS {} ({})")
        key = column_of(KEY, SQL("text PRIMARY KEY"))

        def work(connection: psycopg.Connection[Row]) -> None:
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('dits_adapter'))")
            if connection.execute(_TABLE, [self.name]).fetchone() != {"name": None}:
                return  # another process was faster
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            for name, columns in ((self._failures, columns_of(FAILURES)), (self.name, segments)):
                connection.execute(create.format(Identifier(name), SQL(", ").join([key, *columns])))
            connection.execute(
                SQL("CREATE INDEX ON {} ({})").format(Identifier(self.name), Identifier("video_id"))
            )
            self._know_vectors(connection)
            self._keep(metadata, connection)  # in the place of those of a table that was dropped

        self._run(work)

    def _keep(self, metadata: CollectionMetadata, connection: psycopg.Connection[Row]) -> None:
        columns = "(collection text PRIMARY KEY, metadata jsonb NOT NULL)"
        connection.execute(SQL("CREATE TABLE IF NOT EXISTS {} " + columns).format(_METADATA))
        replacing = "ON CONFLICT (collection) DO UPDATE SET metadata = EXCLUDED.metadata"
        statement = SQL("INSERT INTO {} VALUES (%s, %s) " + replacing).format(_METADATA)
        connection.execute(statement, [self.name, metadata.model_dump_json()])

    def _write_metadata(self, metadata: CollectionMetadata) -> None:
        self._run(partial(self._keep, metadata))

    def _upsert(self, name: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        columns = list(rows[0])
        statement = SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
            Identifier(name),
            SQL(", ").join(map(Identifier, columns)),
            SQL(", ").join(Placeholder() for _ in columns),
            Identifier(KEY),
            SQL(", ").join(SQL("{0} = EXCLUDED.{0}").format(Identifier(column)) for column in columns),
        )
        values = [[to_value(column, row[column]) for column in columns] for row in rows]
        self._run(partial(_execute_many, statement, values))

    def _update(self, condition: Condition, values: Row) -> None:
        assigned = SQL(", ").join(SQL("{} = %s").format(Identifier(name)) for name in values)
        where, asked = where_of(condition)
        statement = SQL("UPDATE {} SET {}{}").format(Identifier(self.name), assigned, where)
        self._execute(statement, [*values.values(), *asked])

    def _assign(self, column: str, values: Mapping[str | int, Any]) -> None:
        statement = SQL("UPDATE {} SET {} = %s WHERE {} = %s").format(
            Identifier(self.name), Identifier(column), Identifier(KEY)
        )
        self._run(partial(_execute_many, statement, [[value, key] for key, value in values.items()]))

    def _delete(self, name: str, condition: Condition) -> None:
        where, asked = where_of(condition)
        self._execute(SQL("DELETE FROM {}{}").format(Identifier(name), where), asked)

    def _select(
        self, name: str, columns: Sequence[str], condition: Condition, limit: int | None = None
    ) -> Iterator[Row]:
        """Read pages in the order of the keys, each in a transaction of its own."""
        key = Identifier(self._key(name))
        page = SQL("SELECT {}, {} AS " + _AT + " FROM {}").format(names_of(columns), key, Identifier(name))
        end = SQL(" ORDER BY {} LIMIT %s").format(key)
        after: list[Any] = []
        while True:
            where, asked = where_of(condition, *[SQL("{} > %s").format(key) for _ in after])
            rows = self._execute(page + where + end, [*after, *asked, min(limit or _PAGE, _PAGE)])
            for row in rows:
                after = [row.pop(_AT)]
                yield to_row(row)
            if len(rows) < _PAGE:
                return

    def _nearest(
        self, queries: NDArray[np.float32], opened: Opened, condition: Condition, number: int, exact: bool
    ) -> list[list[tuple[float, Row]]]:
        vector = Identifier(opened.vector)
        where, asked = where_of(condition, SQL("{} IS NOT NULL").format(vector))
        statement = SQL("SELECT {}, 1 - ({} <=> %s) AS " + _AT + " FROM {}{} ORDER BY {} <=> %s LIMIT %s").format(
            names_of(opened.payload), vector, Identifier(self.name), where, vector
        )
        values = [Vector(query) for query in queries]

        def work(connection: psycopg.Connection[Row], *, exact: bool) -> list[list[Row]]:
            if exact:
                connection.execute("SET LOCAL enable_indexscan = off")
            else:
                connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                connection.execute(f"SET LOCAL hnsw.ef_search = {min(max(number, _LEAST_EF), 1000):d}")
            cursors = [connection.execute(statement, [value, *asked, value, number]) for value in values]
            return [cursor.fetchall() for cursor in cursors]

        answers = self._run(partial(work, exact=exact), at_once=True)
        if any(len(rows) < number for rows in answers) and not exact and self._indexed():
            answers = self._run(partial(work, exact=True), at_once=True)
        return [[(float(row.pop(_AT)), to_row(row)) for row in rows] for rows in answers]

    def _indexed(self) -> bool:
        methods = self._execute(
            SQL(
                "SELECT amname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
                "JOIN pg_am ON pg_am.oid = relam WHERE indrelid = to_regclass(quote_ident(%s))"
            ),
            [self.name],
        )
        return any(row["amname"] in ("hnsw", "ivfflat") for row in methods)

    def _count(self, condition: Condition) -> int:
        where, asked = where_of(condition)
        (row,) = self._execute(SQL("SELECT count(*) AS it FROM {}{}").format(Identifier(self.name), where), asked)
        return int(row["it"])

    def _count_distinct(self, column: str) -> int:
        where, asked = where_of(self._scope())
        count = SQL("SELECT count(DISTINCT {0}) + count(*) - count({0}) AS it FROM {1}{2}")
        (row,) = self._execute(count.format(Identifier(column), Identifier(self.name), where), asked)
        return int(row["it"])

    def finish(self) -> None:
        """Index the segments, once they are many; PostgreSQL keeps the index up to date from then on."""
        width = self._open().space.video.width
        rows = self._count(Condition())
        if width > _WIDEST or rows < _INDEXED or self._indexed():
            return
        statement = SQL("CREATE INDEX ON {} USING hnsw ({} vector_cosine_ops)").format(
            Identifier(self.name), Identifier(VECTOR)
        )
        kilobytes = min(rows * (4 * width + _EDGES) // 1024 + 1, _MOST_MEMORY)

        def work(connection: psycopg.Connection[Row], *, together: bool) -> None:
            connection.execute(
                "SELECT set_config('maintenance_work_mem', greatest(setting::int, %s)::text, true) "
                "FROM pg_settings WHERE name = 'maintenance_work_mem'",
                [kilobytes],
            )
            if not together:
                connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
            connection.execute(statement)

        try:
            self._run(partial(work, together=True))
        except StoreError as error:
            # Processes that build an index together do so in shared memory, of which a container has 64 MB.
            if not isinstance(error.__cause__, psycopg.errors.DiskFull):
                raise
            self._run(partial(work, together=False))


_TABLE = SQL("SELECT to_regclass(quote_ident(%s))::text AS name")

_AT = "dits_adapter_at"
"""Column of a query that no table has: the key of a page, or a score."""


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


def _execute_many(statement: Composed, values: list[list[Any]], connection: psycopg.Connection[Row]) -> None:
    connection.cursor().executemany(statement, values)
