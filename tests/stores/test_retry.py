"""A server that is away, silent, overloaded or answers nonsense: outlasted, and in the end said in a sentence."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant import _retry as retry
from dits_adapter.stores.qdrant.aio import AsyncQdrantStore
from dits_adapter.stores.qdrant.aliases import switch
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.conftest import contents
from tests.stores.fakes import fake_space, write_video
from tests.stores.server import Fault, FlakyProxy, Reply
from tests.stores.test_ingest import assert_same, fresh, run
from tests.waiting import PATIENCE

QUERY = np.ones(8, np.float32)


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


FAULTS: dict[str, Callable[[], Fault]] = {
    "broken before": lambda: "before",
    "broken after": lambda: "after",
    "silence": lambda: "silence",
    "busy, in seconds": lambda: Reply(429, headers={"Retry-After": "2"}),
    "busy, until a date": lambda: Reply(429, headers={"Retry-After": in_seconds(100)}),
    "busy, until no date": lambda: Reply(429, headers={"Retry-After": f"Wed, 21 Oct {10**20} 07:28:00 GMT"}),
    "busy, for ever": lambda: Reply(429, headers={"Retry-After": "inf"}),
    "busy": lambda: Reply(429),
    "unavailable, until a date": lambda: Reply(503, "<h1>back soon</h1>", {"Retry-After": in_seconds(100)}),
    "bad gateway": lambda: Reply(502, "<html>nginx</html>"),
    "empty object": lambda: Reply(200, "{}"),
    "page": lambda: Reply(200, "<html>welcome</html>"),
    "null": lambda: Reply(200, "null"),
    "nested": lambda: Reply(200, "[" * 100_000),
    "drip": lambda: "drip",
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between repetitions, which take no time, but count as if they did; nothing else takes time."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(retry, "_sleep", waited.append)
    monkeypatch.setattr(retry, "_sleep_async", wait)
    monkeypatch.setattr(retry, "_now", lambda: sum(waited))
    return waited


@pytest.fixture
def name(qdrant_server: str) -> Iterator[str]:
    name = f"flaky-{uuid.uuid4().hex}"
    yield name
    with QdrantStore(qdrant_server) as store:
        for collection in store.client.get_collections().collections:
            if collection.name.startswith(name):
                store.client.delete_collection(collection.name)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for seed in range(3):
        write_video(tmp_path / "library" / f"{seed}.mp4", seed=seed)
    write_video(tmp_path / "library" / "broken.mp4", "broken")
    return tmp_path / "library"


def first_of_each(fault: Fault) -> Callable[[str, str], Fault]:
    """The first request of each kind meets a fault, as if the server were flaky and we unlucky."""
    met: set[tuple[str, str]] = set()

    def happen(method: str, path: str) -> Fault:
        kind = method, path
        if kind in met:
            return None
        met.add(kind)
        return fault

    return happen


@pytest.mark.parametrize(
    "kind",
    [
        "broken before",
        "broken after",
        "silence",
        "busy, in seconds",
        "busy, until a date",
        "unavailable, until a date",
        "bad gateway",
        "empty object",
    ],
)
def test_every_request_of_an_ingestion_outlasts_a_fault(
    qdrant_server: str,
    name: str,
    library: Path,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(retry, "TIMEOUT", 0.2 if kind == "silence" else PATIENCE)
    clean = fresh()
    run(clean, library)
    with (
        FlakyProxy(qdrant_server, first_of_each(FAULTS[kind]())) as proxy,
        QdrantStore(proxy.url, name, space=fake_space(), patience=100_000) as store,
    ):
        report = run(store, library)
        assert (report.videos, len(report.failed)) == (3, 1)
        write_video(library / "0.mp4", seed=9)  # replaced: deletes
        (library / "1.mp4").rename(library / "moved.mp4")  # moved: sets payload
        run(store, library)
        run(clean, library)
        assert len(waits) >= 9
        assert "PUT /collections/" + name in proxy.requests
        before = len(waits)
        proxy.fault = first_of_each(FAULTS[kind]())
        hits = store.search(QUERY)
        assert [hit.path for hit in hits] == [hit.path for hit in clean.search(QUERY)]
        assert len(waits) > before
    with QdrantStore(qdrant_server, name) as store:
        assert_same(contents(store), contents(clean))
    if "date" in kind:
        assert 60 < max(waits) <= 100
    if "seconds" in kind:
        assert min(waits) == 2


@pytest.mark.parametrize("kind", ["broken after", "silence", "busy, until a date", "empty object"])
def test_asyncio_outlasts_it_too(
    qdrant_server: str,
    name: str,
    library: Path,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(retry, "TIMEOUT", 0.2 if kind == "silence" else PATIENCE)
    with QdrantStore(qdrant_server, name) as store:
        run(store, library)
        expected = [hit.id for hit in store.search(QUERY)]

    async def search(url: str) -> list[Any]:
        async with AsyncQdrantStore(url, name, space=fake_space(), patience=100_000) as store:
            return [hit.id for hit in await store.search(QUERY)]

    with FlakyProxy(qdrant_server, first_of_each(FAULTS[kind]())) as proxy:
        assert asyncio.run(search(proxy.url)) == expected
    assert waits


def test_copies_and_switches_outlast_faults(
    qdrant_server: str, name: str, library: Path, tmp_path: Path, waits: list[float]
) -> None:
    with (
        QdrantStore(tmp_path / "store") as source,
        FlakyProxy(qdrant_server, first_of_each("after")) as proxy,
        QdrantStore(proxy.url, name) as store,
    ):
        run(source, library)
        copy_collection(source, store, progress=False)
        assert contents(store).keys() == contents(source).keys()
        alias = QdrantStore(store.client, f"{name}-alias")
        for _ in range(2):
            proxy.fault = first_of_each("after")
            switch(alias, name)
        assert alias.resolve() == name


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("busy, until a date", r"is overloaded \(Too many requests\); try again in [1-9]\d+ s"),
        ("busy, in seconds", r"is overloaded .*; try again in 2 s"),
        ("unavailable, until a date", "answers 503: <h1>back soon</h1>"),
        ("bad gateway", "answers 502: <html>nginx</html>"),
        ("empty object", "gives no usable answer .*none of Qdrant's.*is the address right"),
        ("page", "gives no usable answer .*none of Qdrant's.*is the address right"),
        ("nested", "gives no usable answer .*none of Qdrant's.*is the address right"),
        ("busy, until no date", r"is overloaded .*; try again later"),
        ("busy, for ever", r"is overloaded .*; try again later"),
        ("drip", "does not answer in time.*--patience"),
        ("null", "gives no usable answer .*none of Qdrant's.*is the address right"),
        ("silence", "does not answer in time.*--patience"),
        ("broken before", "gives no usable answer .*disconnected"),
    ],
)
@pytest.mark.parametrize("way", ["ingest", "asyncio"])
def test_what_lasts_is_said_in_a_sentence_within_the_patience(
    library: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, way: str, kind: str, message: str
) -> None:
    patience = 0.3 if kind in ("silence", "drip") else 50
    if kind == "drip":
        monkeypatch.setattr(retry, "_now", time.monotonic)  # only time ends it
    with (
        FlakyProxy("http://nowhere", lambda *_: FAULTS[kind]()) as proxy,
        QdrantStore(proxy.url, patience=patience) as store,
    ):

        async def search() -> None:
            async with AsyncQdrantStore(proxy.url, patience=patience) as store:
                await store.search(QUERY)

        acts = {
            "ingest": lambda: run(store, library),
            "asyncio": lambda: asyncio.run(search()),
        }
        with pytest.raises(StoreError, match=message) as raised:
            acts[way]()
        sentence = str(raised.value)
        assert sentence.startswith(proxy.url)
        assert "\n" not in sentence
    assert sum(waits) < patience
    if kind == "bad gateway":
        assert sum(waits) > patience / 2
    if kind == "page":
        assert sum(waits) < 3


def test_pauses_grow_and_differ(library: Path, waits: list[float]) -> None:
    with FlakyProxy("http://nowhere", lambda *_: Reply(503)) as proxy, QdrantStore(proxy.url) as store:
        with pytest.raises(StoreError):
            run(store, library)
        assert 100 < sum(waits) < 120
        assert waits[0] < 1 < waits[2] < waits[4] < 15
        assert len({round(wait, 9) for wait in waits}) == len(waits)
        waits.clear()
        with pytest.raises(StoreError):
            store.search(QUERY)
        assert 0.5 < sum(waits) < 3


def test_a_search_that_is_broken_off_late_is_sent_once_more(
    qdrant_server: str, name: str, library: Path, waits: list[float]
) -> None:
    """A server that was stopped for eight seconds drops the requests that waited, and answers the next ones."""
    with QdrantStore(qdrant_server, name) as store:
        run(store, library)
        expected = [hit.id for hit in store.search(QUERY)]
    first = first_of_each("before")

    def late(method: str, path: str) -> Fault:
        fault = first(method, path)
        waits.extend([8.0] if fault else [])
        return fault

    with FlakyProxy(qdrant_server, late) as proxy, QdrantStore(proxy.url, name) as store:
        assert [hit.id for hit in store.search(QUERY)] == expected
        asked = len(proxy.requests)
        first = first_of_each("before")
        proxy.fault = lambda *request: late(*request) or waits.append(8.0) or "before"
        with pytest.raises(StoreError, match="disconnected"):
            store.search(QUERY)
        assert len(proxy.requests) == asked + 2


def test_two_that_create_at_once_are_one(qdrant_server: str, name: str) -> None:
    together, number = threading.Barrier(2), itertools.count()

    def wait_for_both(method: str, path: str) -> Fault:
        if method == "PUT" and path == f"/collections/{name}" and next(number) < 2:  # and not when asked again
            together.wait(PATIENCE)
        return None

    errors: list[BaseException] = []

    def create(url: str) -> None:
        try:
            with QdrantStore(url, name) as store:
                store.create(CollectionMetadata(space=fake_space()))
        except BaseException as error:
            errors.append(error)

    with FlakyProxy(qdrant_server, wait_for_both) as proxy:
        threads = [threading.Thread(target=create, args=(proxy.url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:99999",
        "http://localhost:0",
        "http://",
        "http://:6333",
        "http://local host:6333",
        "http://localhost:port",
        "http://a..b:6333",
        "http://[::1:6333",
        "http://ada:secret@localhost:6333",
        "http://localhost:6333?api-key=secret",
        "http://localhost:6333/#secret",
        "http://ada:secret@localhost:99999",
        "http://local\nhost:6333",
    ],
)
@pytest.mark.parametrize("kind", [QdrantStore, AsyncQdrantStore])
def test_an_address_that_is_none_is_refused_without_what_is_secret(kind: type, address: str) -> None:
    with pytest.raises(InputError, match=r"the server's address .*http://HOST:PORT") as raised:
        kind(address)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["schlüssel-secret", "secret\n", "se cret", "\udc80secret", "“secret”"])
@pytest.mark.parametrize("kind", [QdrantStore, AsyncQdrantStore])
def test_a_key_that_is_none_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Any], key: str
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", key)
    with pytest.raises(InputError, match="QDRANT_API_KEY: the character at position") as raised:
        kind("http://127.0.0.1:1")
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize("patience", [0, -1, float("nan"), float("inf")])
def test_a_patience_that_is_no_time_is_refused(patience: float) -> None:
    for kind in (QdrantStore, AsyncQdrantStore):
        with pytest.raises(InputError, match="a number of seconds above 0"):
            kind("http://127.0.0.1:1", patience=patience)


def test_a_redirection_is_named_without_its_query() -> None:
    moved = Reply(308, headers={"Location": "https://elsewhere:6333/?token=secret"})
    with (
        FlakyProxy("http://nowhere", lambda *_: moved) as proxy,
        QdrantStore(proxy.url) as store,
        pytest.raises(StoreError, match="answers 308 and points to https://elsewhere:6333/") as raised,
    ):
        store.search(QUERY)
    assert "secret" not in str(raised.value)


def test_the_command_takes_a_patience(waits: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with FlakyProxy("http://nowhere", lambda *_: Reply(503)) as proxy:
        assert main(["switch", "other", "--store", proxy.url, "--patience", "20"]) == 1
    assert "answers 503" in capsys.readouterr().err
    assert 10 < sum(waits) < 20


def test_a_certificate_that_is_none_is_not_asked_for_again(waits: list[float]) -> None:
    with FlakyProxy("http://nowhere", lambda *_: None) as proxy:
        store = QdrantStore(proxy.url.replace("http:", "https:"))
        with pytest.raises(StoreError, match="gives no usable answer"):
            store.search(QUERY)
    assert waits == []


def test_what_ingestion_refuses_it_refuses_at_once(qdrant_server: str, name: str, waits: list[float]) -> None:
    with QdrantStore(qdrant_server, name) as store:
        store.create(CollectionMetadata(space=fake_space()))
        with pytest.raises(StoreError, match="holds whole videos"):
            store.create(CollectionMetadata(space=fake_space(), segment_seconds=2.0))
    assert waits == []
