"""Columns, rows and conditions of tables (`_table`) in PostgreSQL's SQL with pgvector's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pgvector import HalfVector, Vector
from psycopg.sql import SQL, Composable, Composed, Identifier

from dits_adapter.stores._table import FRAMES, VECTOR, Condition, Row

__all__ = ["KINDS", "column_of", "columns_of", "names_of", "to_row", "to_value", "where_of"]

_TYPES = {"text": "text", "int": "bigint", "float": "double precision", "floats": "double precision[]"}
"""Types of columns by the kinds of `SEGMENTS` and `FAILURES`."""

KINDS = {
    "text": "text",
    "character varying": "text",
    "character": "text",
    "citext": "text",
    "uuid": "text",
    "smallint": "int",
    "integer": "int",
    "bigint": "int",
    "real": "float",
    "double precision": "float",
    "double precision[]": "floats",
    "vector": "vector",
    "halfvec": "vector",
}
"""Kinds of columns by PostgreSQL's names of their types; others are of the kind "other"."""


def column_of(name: str, of: Composable) -> Composed:
    """Return the definition of a column: its name and its type."""
    return SQL("{} {}").format(Identifier(name), of)


def columns_of(kinds: Mapping[str, str]) -> list[Composed]:
    """Return the definitions of columns of these kinds."""
    return [column_of(name, SQL(_TYPES[kind])) for name, kind in kinds.items()]


def names_of(columns: Sequence[str]) -> Composed:
    """Return a list of columns."""
    return SQL(", ").join(map(Identifier, columns))


def where_of(condition: Condition, *others: Composable) -> tuple[Composable, list[Any]]:
    """Return a condition as SQL, with the values of its placeholders."""
    parts, values = list(others), list[Any]()
    for name, among in condition.among.items():
        texts = any(isinstance(value, str) for value in among)
        parts.append(SQL("{}::text = ANY(%s)" if texts else "{} = ANY(%s)").format(Identifier(name)))
        values.append(list(among))
    for text in condition.contains:
        having = [SQL("strpos({}::text, %s) > 0").format(Identifier(name)) for name in condition.texts]
        parts.append(SQL("({})").format(SQL(" OR ").join(having)))
        values += [text] * len(condition.texts)
    for bounds, comparison in ((condition.least, "{} >= %s"), (condition.most, "{} <= %s")):
        for name, bound in bounds.items():
            parts.append(SQL(comparison).format(Identifier(name)))
            values.append(bound)
    parts += [SQL("{} IS NOT NULL").format(Identifier(name)) for name in condition.present]
    return (SQL(" WHERE ") + SQL(" AND ").join(parts) if parts else SQL("")), values


def to_value(column: str, value: Any) -> Any:
    """Return a value as its column takes it: vectors as pgvector's, frame vectors as bytes."""
    if column == VECTOR:
        return Vector(value)
    return np.asarray(value, "<f4").tobytes() if column == FRAMES else value


def to_row(row: Row) -> Row:
    """Return a row with its vectors as arrays."""
    for name, value in row.items():
        if isinstance(value, Vector | HalfVector):
            row[name] = np.asarray(value.to_numpy(), np.float32)
        elif name == FRAMES and value is not None:
            row[name] = np.frombuffer(value, "<f4")
    return row
