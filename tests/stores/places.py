"""Every kind of store, empty: the one list over which the behavior of stores is tested."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from dits_adapter import QdrantStore
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.open import open_store
from tests.stores.own_store import SqliteStore

__all__ = ["PLACES", "Open", "place"]

Open = Callable[..., VideoStore]
"""Function that opens one collection, with keyword options, again and again as other programs would."""


def _memory(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    memory = MemoryStore(name)

    def open_again(space: EmbeddingSpace | None = None) -> VideoStore:
        memory.space = space
        return memory

    yield open_again


def _own(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    yield lambda **options: SqliteStore(f"sqlite://{folder}/rows.db", name, **options)


def _qdrant_memory(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    client = QdrantClient(":memory:")
    yield lambda **options: QdrantStore(client, name, **options)
    client.close()


def _qdrant_folder(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    with ExitStack() as opened:

        def open_alone(**options: Any) -> VideoStore:  # a folder lets one in at a time
            opened.close()
            return opened.enter_context(QdrantStore(folder / "store", name, **options))

        yield open_alone


def _qdrant_server(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    url = request.getfixturevalue("qdrant_server")
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(QdrantStore(url, name, **options))
        QdrantStore(url, name).client.delete_collection(name)


def _lancedb(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    pytest.importorskip("lancedb")
    yield lambda **options: open_store(f"lancedb://{folder}/lance", name, **options)


def _pgvector(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    url = request.getfixturevalue("postgres_server")
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(open_store(url, name, **options))


def _milvus(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[Open]:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(open_store(f"milvus://{folder}/lite.db", name, **options))


_KINDS = {
    "MemoryStore": _memory,
    "own store": _own,
    "Qdrant memory": _qdrant_memory,
    "Qdrant folder": _qdrant_folder,
    "Qdrant server": _qdrant_server,
    "LanceDB": _lancedb,
    "pgvector": _pgvector,
    "Milvus Lite": _milvus,
}

PLACES = list(_KINDS)
"""Names of the kinds of stores."""


@contextmanager
def place(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Open]:
    """Give a collection of a kind, which is gone afterwards; the test is skipped where its database is missing."""
    yield from _KINDS[kind](request, folder, f"videos_{uuid.uuid4().hex[:8]}")
