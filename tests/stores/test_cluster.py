"""Three Qdrant servers with two copies of everything: one is killed while they fill and are searched."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Headers
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from benchmarks.server import QdrantProcess
from dits_adapter.errors import StoreError
from dits_adapter.stores import session
from dits_adapter.stores.qdrant import _retry as retry
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.conftest import contents
from tests.stores.fakes import FakeEncoder, write_video
from tests.stores.server import QdrantCluster, TcpProxy
from tests.stores.test_ingest import assert_same, fresh, run
from tests.waiting import PATIENCE, wait_until

TWO_COPIES = CollectionOptions(shards=3, replicas=2)
VIDEOS, KILLED_AT, BACK_AT = 60, 15, 40


@pytest.fixture(scope="module")
def running() -> Iterator[QdrantCluster]:
    binary = os.environ.get("QDRANT_BIN")
    if binary is None:
        pytest.skip("no Qdrant servers that may be killed: set QDRANT_BIN to Qdrant's binary")
    cluster = QdrantCluster(binary)
    yield cluster
    cluster.remove()


@pytest.fixture
def nodes(running: QdrantCluster, monkeypatch: pytest.MonkeyPatch) -> list[QdrantProcess]:
    """All of them there, with short pauses between requests and many of these."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(session, "BATCH", 4)
    for node in running.nodes:
        node.start()
    return running.nodes


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for seed in range(VIDEOS):
        kind = "broken" if seed % 20 == 7 else "good"
        write_video(tmp_path / "library" / f"{seed:03}.mp4", kind, seed=seed, segments=seed % 5 + 1)
    return tmp_path / "library"


@pytest.fixture
def expected(library: Path) -> dict[str, Any]:
    """What one clean run stores."""
    store = fresh()
    run(store, library)
    return contents(store)


class Searches:
    """Searches for a stored segment, again and again in a thread, and keeps what goes wrong."""

    def __init__(self, url: str, collection: str, stored: dict[str, Any]) -> None:
        self.answers = 0
        self.wrong: list[Any] = []
        self._store = QdrantStore(url, collection, patience=PATIENCE)
        self._stored = stored
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._search)

    def _search(self) -> None:
        path, query = next(
            (payload["path"], vectors["video"])
            for payload, vectors in self._stored.values()
            if payload["path"].endswith("/000.mp4")
        )
        while not self._done.is_set():
            try:
                (hit,) = self._store.search(query, limit=1)
            except Exception as error:  # whatever it is: it should not be
                self.wrong.append(error)
            else:
                self.answers += 1
                if hit.path != path or hit.score < 0.999:
                    self.wrong.append(hit)
            time.sleep(0.01)

    def wait_for_another(self) -> None:
        """Wait for the answer to a search that is sent from now on."""
        wanted = self.answers + 2  # one is under way
        wait_until(lambda: self.answers >= wanted or self.wrong)

    def __enter__(self) -> Searches:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._store.close()


def wait_for_all_copies(nodes: list[QdrantProcess], collection: str) -> None:
    def states() -> Iterator[str]:
        for node in nodes:
            with QdrantStore(node.url, collection) as store:
                copies = store.client.collection_cluster_info(collection)
            yield from (shard.state.value for shard in (*copies.local_shards, *copies.remote_shards))
            yield from ("transfer" for _ in copies.shard_transfers)

    wait_until(lambda: set(states()) == {"Active"}, 0.1)


def assert_everywhere(nodes: list[QdrantProcess], collection: str, expected: dict[str, Any]) -> None:
    """Each node answers from the copies that it has, so together they show every copy of every shard."""
    wait_for_all_copies(nodes, collection)
    for node in nodes:
        with QdrantStore(node.url, collection) as store:
            assert_same(contents(store), expected)


@pytest.mark.parametrize("victim", ["another node", "the node that is talked to"])
def test_a_node_killed_during_ingestion_and_search_loses_nothing(
    nodes: list[QdrantProcess], library: Path, expected: dict[str, Any], victim: str
) -> None:
    with TcpProxy([node.port for node in nodes]) as proxy:  # like a load balancer: to the first that is there
        node = nodes[0 if victim == "the node that is talked to" else 2]
        collection = f"videos-{uuid.uuid4().hex}"
        encoder = FakeEncoder(delay=0.005)

        def kill_and_start(path: str) -> None:
            step = len(encoder.decoded)
            if step == KILLED_AT:
                searches.wait_for_another()
                node.kill()
                searches.wait_for_another()
            elif step == BACK_AT:
                searches.wait_for_another()
                node.start()

        encoder.before = kill_and_start
        with QdrantStore(proxy.url, collection) as store:
            run(store, library / "000.mp4", store_options=TWO_COPIES)
            with Searches(proxy.url, collection, expected) as searches:
                report = run(store, library, encoder)
                searches.wait_for_another()
        assert searches.wrong == []
        assert (report.videos, len(report.failed)) == (VIDEOS - 1 - 3, 3)
        assert_everywhere(nodes, collection, expected)


def test_writes_that_ask_for_more_copies_than_there_are_wait_for_them(
    nodes: list[QdrantProcess], library: Path, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    collection = f"videos-{uuid.uuid4().hex}"
    encoder = FakeEncoder()
    back = threading.Timer(2, nodes[2].start)

    def kill(path: str) -> None:
        if len(encoder.decoded) == KILLED_AT:
            nodes[2].kill()
            back.start()

    encoder.before = kill
    with QdrantStore(nodes[0].url, collection) as store:
        try:
            run(store, library, encoder, store_options=TWO_COPIES.model_copy(update={"write_consistency": 2}))
        finally:
            back.join()
    assert "is away or overloaded" in caplog.text
    assert_everywhere(nodes, collection, expected)


def test_without_any_copy_of_a_shard_it_says_so_and_goes_on_when_one_is_back(
    nodes: list[QdrantProcess], library: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = f"videos-{uuid.uuid4().hex}"
    query = next(vectors["video"] for _, vectors in expected.values() if vectors)
    with QdrantStore(nodes[0].url, collection) as store:
        run(store, library, store_options=TWO_COPIES)
    with QdrantStore(nodes[0].url, collection, patience=PATIENCE) as store:
        before = store.search(query)
    with QdrantStore(nodes[0].url, collection, patience=5) as store:
        for node in nodes[1:]:
            node.kill()
        with pytest.raises(StoreError, match=r"too many nodes of the cluster are away.*one copy of each shard"):
            store.search(query)
        with pytest.raises(StoreError, match="too many nodes of the cluster are away"):
            run(store, library)
    for node in nodes[1:]:
        node.start()
    with QdrantStore(nodes[0].url, collection, patience=PATIENCE) as store:
        assert [hit.id for hit in store.search(query)] == [hit.id for hit in before]
    assert_everywhere(nodes, collection, expected)


PASSING = [
    (408, "Timeout: 2 out of 3 shards failed to apply operation"),
    (500, 'Service internal error: Tonic status error: status: Unavailable, message: "error trying to connect"'),
    (500, 'Service internal error: Tonic status error: status: Unknown, message: "transport error", details: []'),
    (500, "Service internal error: The replica set for shard 1 on peer 7 has no active replica"),
    (500, "Service internal error: Waiting for consensus operation commit failed. Timeout set at: 10 seconds"),
    (500, "Service internal error: 1 of 1 read operations failed: Local shard 0 not found"),
]
LASTING = [(500, "Service internal error: No space left on device"), (404, "Not found: Collection `videos`")]


@pytest.mark.parametrize(("status", "answer"), [*PASSING, *LASTING])
@pytest.mark.parametrize("request_", ["upsert", "query_batch_points"])
def test_only_what_passes_is_asked_again(
    library: Path, monkeypatch: pytest.MonkeyPatch, status: int, answer: str, request_: str
) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    store = fresh()
    run(store, library / "000.mp4")
    original: Callable[..., Any] = getattr(store.client, request_)
    asked = 0

    def answers_the_third_time(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise UnexpectedResponse(status, "", answer.encode(), Headers())
        return original(*arguments, **options)

    def act() -> object:
        if request_ == "upsert":
            return run(store, library / "001.mp4")
        return store.search([1.0] * 8)

    monkeypatch.setattr(store.client, request_, answers_the_third_time)
    if (status, answer) in LASTING:
        with pytest.raises(StoreError, match=f"answers {status}: {answer}"):
            act()
        # a search looks once more, as an alias may have moved to another collection
        assert asked == (2 if status == 404 and request_ == "query_batch_points" else 1)
    else:
        assert act()
        assert asked >= 3


def test_a_search_gives_up_soon(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    client = QdrantClient(":memory:")
    store = QdrantStore(client, patience=0.05)
    run(store, library / "000.mp4")

    def away(*_: Any, **__: Any) -> Any:
        raise UnexpectedResponse(PASSING[1][0], "", PASSING[1][1].encode(), Headers())

    monkeypatch.setattr(client, "query_batch_points", away)
    with pytest.raises(StoreError, match="too many nodes of the cluster are away"):
        store.search([1.0] * 8)
