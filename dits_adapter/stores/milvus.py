"""Video segments in Milvus: a server, a cluster, or a file that Milvus Lite searches in this process."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient  # type: ignore[import-untyped]
from pymilvus.exceptions import MilvusException  # type: ignore[import-untyped]

from dits_adapter._extras import require_modules
from dits_adapter._files import require_writable
from dits_adapter._secrets import secret
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores._table import FAILURES, FRAMES, KEY, SEGMENTS, VECTOR, Condition, Opened, Row, Table
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.base import Capabilities
from dits_adapter.stores.metadata import CollectionMetadata

__all__ = ["MilvusStore"]

_METADATA = "dits_adapter"
"""Property of the collection that holds its metadata."""

_LONGEST = 65_535
"""Greatest length of a string, in bytes."""

_MOST = 16_384
"""Greatest number of rows that one search returns."""

_PAGE = 500
_TYPES = {"int": DataType.INT64, "float": DataType.DOUBLE, "floats": DataType.JSON}
_KINDS = {
    DataType.VARCHAR: "text",
    DataType.INT8: "int",
    DataType.INT16: "int",
    DataType.INT32: "int",
    DataType.INT64: "int",
    DataType.FLOAT: "float",
    DataType.DOUBLE: "float",
    DataType.JSON: "floats",
    DataType.FLOAT_VECTOR: "vector",
}

for _name in ("pymilvus", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they print each error with its traceback, and raise it


class MilvusStore(TableStore):
    """A collection of video segments in Milvus 2.6 or newer, or in a file of Milvus Lite.

    Args:
        location: `milvus://host:19530/database`, `milvus+https://…` for an encrypted connection, or `milvus://`
            and a path that ends with `.db` for Milvus Lite. The token, or `user:password`, is better kept in the
            environment variable MILVUS_TOKEN or the file of MILVUS_TOKEN_FILE; in the address it is not shown
            again.
        collection: name of the collection.
        space, layout, trust_foreign, tenant: as `QdrantStore`; names of a layout are those of fields.
    """

    names: ClassVar = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
    names_in_words: ClassVar = "is made of letters, digits and underscores, and does not begin with a digit"

    @cached_property
    def _file(self) -> str | None:
        """File of Milvus Lite; None for a server."""
        scheme, _, rest = self._address.partition("://")
        return rest if rest.endswith(".db") and scheme.lower() == "milvus" else None

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """Abilities of the store; `frames` is of the collection, once that was opened."""
        return replace(super().capabilities, remote=self._file is None, index=self._file is None)

    def close(self) -> None:
        """Close the connection."""
        self._opened = None
        self._in_memory.clear()
        if (client := self.__dict__.pop("_client", None)) is not None:
            client.close()

    @cached_property
    def _client(self) -> MilvusClient:
        if self._file is not None:
            require_modules("a file of Milvus Lite", "milvus_lite")
            require_writable(Path(self._file).absolute().parent)
            return MilvusClient(self._file)
        try:
            parts = urlsplit(self._address)
            port = parts.port or 19530
        except ValueError:
            parts, port = None, 0
        if parts is None or not parts.hostname:
            raise InputError(f"store {self.location!r} is no address of Milvus, such as milvus://localhost:19530.")
        scheme = "https" if parts.scheme.lower().endswith("https") else "http"
        return MilvusClient(
            uri=f"{scheme}://{parts.hostname}:{port}",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            token=(secret("MILVUS_TOKEN") or "") if parts.username is None else "",
            db_name=parts.path.strip("/"),
        )

    @cached_property
    def _in_memory(self) -> set[str]:
        """Collections that this client has loaded."""
        return set()

    @contextmanager
    def _using(self) -> Iterator[MilvusClient]:
        with self._lock:
            try:
                yield self._client
            except MilvusException as error:
                cause = str(error.message).strip().partition("\n")[0]
                raise StoreError(f"{self.location}: {cause}") from error

    @contextmanager
    def _loaded(self, name: str) -> Iterator[MilvusClient]:
        """Give the client with a collection in the memory of Milvus, which answers for no other.

        A file that is opened anew has none there, nor has a server where somebody released it.
        """
        with self._using() as client:
            if name not in self._in_memory:
                client.load_collection(name)
                self._in_memory.add(name)
            yield client

    def _describe(self, name: str) -> Table | None:
        if not self.names.fullmatch(name) or (self._file is not None and not os.path.exists(self._file)):
            return None  # connecting would make the file
        with self._using() as client:
            if not client.has_collection(name):
                return None
            described = client.describe_collection(name)
        fields = described["fields"]
        return Table(
            columns={field["name"]: _KINDS.get(field["type"], "other") for field in fields},
            widths={field["name"]: field["params"]["dim"] for field in fields if "dim" in field["params"]},
            key=next(field["name"] for field in fields if field.get("is_primary")),
            metadata=(described.get("properties") or {}).get(_METADATA),
        )

    def _create(self, metadata: CollectionMetadata) -> None:
        with self._using() as client:
            self._make(client, self._failures, FAILURES, width=2)  # a collection without vectors cannot be
            kept = {_METADATA: metadata.model_dump_json()}
            columns = {**SEGMENTS, FRAMES: "text"}
            self._make(client, self.name, columns, width=metadata.space.video.width, properties=kept)

    def _make(
        self, client: MilvusClient, name: str, columns: Mapping[str, str], *, width: int, **options: Any
    ) -> None:
        if client.has_collection(name):
            return
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=100)
        for column, kind in columns.items():
            if kind == "text":
                schema.add_field(column, DataType.VARCHAR, max_length=_LONGEST, nullable=True)
            else:
                schema.add_field(column, _TYPES[kind], nullable=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=width)
        index = client.prepare_index_params()
        kind = "AUTOINDEX" if self._file is None else "FLAT"
        index.add_index(VECTOR, index_type=kind, metric_type="COSINE")
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong", **options)

    def _write_metadata(self, metadata: CollectionMetadata) -> None:
        with self._using() as client:
            client.alter_collection_properties(self.name, {_METADATA: metadata.model_dump_json()})

    def _upsert(self, name: str, rows: Sequence[Row]) -> None:
        values = [
            row | ({FRAMES: _packed(row[FRAMES])} if FRAMES in row else {VECTOR: [0.0, 1.0]}) for row in rows
        ]
        with self._loaded(name) as client:
            client.upsert(name, values)

    def _update(self, condition: Condition, values: Row) -> None:
        for keys in self._keys(condition):
            with self._loaded(self.name) as client:
                client.upsert(self.name, [{KEY: key, **values} for key in keys], partial_update=True)

    def _keys(self, condition: Condition) -> Iterator[list[str]]:
        rows = self._select(self.name, [KEY], condition)
        keys = [row[KEY] for row in rows]  # all of them before the first is changed
        yield from (keys[start : start + _PAGE] for start in range(0, len(keys), _PAGE))

    def _assign(self, column: str, values: Mapping[str | int, Any]) -> None:
        rows = [{KEY: key, column: value} for key, value in values.items()]
        with self._loaded(self.name) as client:
            client.upsert(self.name, rows, partial_update=True)

    def _delete(self, name: str, condition: Condition) -> None:
        with self._loaded(name) as client:
            client.delete(name, filter=_expression(condition))

    def _select(
        self, name: str, columns: Sequence[str], condition: Condition, limit: int | None = None
    ) -> Iterator[Row]:
        """Read pages in the order of the keys, and begin anew behind a key that pymilvus does not write as Milvus
        reads it: one with quotes.
        """
        key, expression = self._key(name), _expression(condition)
        scope = expression
        while True:
            for page in self._pages(name, list(dict.fromkeys([*columns, key])), scope, limit):
                yield from (_read(row, columns) for row in page)
                limit = None if limit is None else limit - len(page)
                last = page[-1][key]
                if limit != 0 and isinstance(last, str) and _literal(last) != f'"{last}"':
                    break
            else:
                return
            scope = " and ".join(filter(None, [f"{key} > {_literal(last)}", expression and f"({expression})"]))

    def _pages(
        self, name: str, columns: list[str], expression: str, limit: int | None
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        with self._loaded(name) as client:
            pages = client.query_iterator(
                name,
                batch_size=min(_PAGE, limit or _PAGE),
                limit=limit or -1,
                filter=expression,
                output_fields=columns,
            )
        try:
            while True:
                with self._using():
                    page = pages.next()
                if not page:
                    return
                yield page
        finally:
            with self._using():
                pages.close()

    def _nearest(
        self, queries: NDArray[np.float32], opened: Opened, condition: Condition, number: int, exact: bool
    ) -> list[list[tuple[float, Row]]]:
        if exact and self._file is None:
            raise InputError("exact: Milvus follows its index in every search; leave it out.")
        with self._loaded(self.name) as client:
            answers = client.search(
                self.name,
                data=list(queries),
                anns_field=opened.vector,
                limit=min(number, _MOST),
                filter=_expression(condition),
                output_fields=opened.payload,
                search_params={"metric_type": "COSINE"},
            )
        if number > _MOST and any(len(hits) == _MOST for hits in answers):
            raise StoreError(
                f"more than {_MOST:,} segments of {self.name!r} would have to be looked at, which Milvus does not "
                "return; ask for fewer videos."
            )
        return [[(hit["distance"], _read(hit["entity"], opened.payload)) for hit in hits] for hits in answers]

    def _count(self, condition: Condition) -> int:
        with self._loaded(self.name) as client:
            (row,) = client.query(self.name, filter=_expression(condition), output_fields=["count(*)"])
        return int(row["count(*)"])


def _packed(frames: NDArray[np.float32]) -> str:
    """Return frame vectors as text, in float16 where those in float32 are too long for a string."""
    for size in (4, 2):
        text = f"{size}{base64.b64encode(np.asarray(frames, f'<f{size}').tobytes()).decode()}"
        if len(text) <= _LONGEST:
            return text
    raise InputError(
        f"{len(frames)} frames of width {frames.shape[1]} are too long for Milvus, which keeps 64 kB a field; "
        "embed with fewer frames (--frames)."
    )


def _read(row: Mapping[str, Any], columns: Sequence[str]) -> Row:
    """Return the columns of a row, with vectors as arrays."""
    values: Row = {}
    for name in columns:
        value = row.get(name)
        if name == FRAMES and value is not None:
            packed = base64.b64decode(value[1:])
            values[name] = np.frombuffer(packed, f"<f{value[0]}").astype(np.float32)
        else:
            values[name] = value
    return values


def _literal(value: Any) -> str:
    """Return a value as Milvus reads it in an expression: as JSON, but for control characters as they are."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"\\(u....|.)", lambda escape: _raw(escape[0]) if escape[1][0] in "ubf" else escape[0], text)


def _raw(escape: str) -> str:
    return str(json.loads(f'"{escape}"'))


def _expression(condition: Condition) -> str:
    """Return a condition as Milvus reads it; names are those of columns."""
    parts = [f"{name} in {_literal(list(values))}" for name, values in condition.among.items()]
    for text in condition.contains:
        if not {"%", "_", "\\"}.isdisjoint(text):
            raise InputError(f"the word {text.strip()!r} has characters that Milvus takes for any others.")
        pattern = _literal(f"%{text}%")
        parts.append(f"({' or '.join(f'{name} like {pattern}' for name in condition.texts)})")
    parts += [f"{name} >= {_literal(float(bound))}" for name, bound in condition.least.items()]
    parts += [f"{name} <= {_literal(float(bound))}" for name, bound in condition.most.items()]
    parts += [f"{name} is not null" for name in condition.present]
    return " and ".join(parts)
