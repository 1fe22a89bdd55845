"""Requests as large as a server takes them, its strict mode, and words that mean the same in every store."""

from __future__ import annotations

import asyncio
import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from dits_adapter.errors import StoreError
from dits_adapter.stores._words import words_of
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant import _limits
from dits_adapter.stores.qdrant._limits import Limits
from dits_adapter.stores.qdrant.aio import AsyncQdrantStore
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest, VideoFilter
from dits_adapter.stores.rows import SegmentRow, VideoFile, segment_id, video_id_of
from tests.stores.conftest import contents
from tests.stores.fakes import FRAMES, WIDTH, fake_space, unit
from tests.stores.own_store import SqliteStore
from tests.stores.server import FlakyProxy, qdrant_client

QUERY = np.ones(WIDTH, np.float32)
METADATA = CollectionMetadata(space=fake_space(), segment_seconds=2.0)


def row(n: int, path: str = "/films/a.mp4", segment: int = 0, frames: int = FRAMES) -> SegmentRow:
    rng = np.random.default_rng(1000 * n + segment)
    video_id = video_id_of(f"{n:064x}")
    vectors = unit(rng.normal(size=(frames, WIDTH)))
    return SegmentRow(
        id=segment_id(video_id, 2.0 * segment, 2.0 * segment + 2),
        video_id=video_id,
        path=path,
        start=2.0 * segment,
        end=2.0 * segment + 2,
        timestamps=tuple(np.linspace(0, 2, frames).tolist()),
        duration=6.0,
        fps=25.0,
        decoder="none",
        size=1,
        mtime_ns=1,
        segments=3 if segment == 2 else None,
        vector=unit(vectors.mean(axis=0)),
        frame_vectors=vectors,
    )


@pytest.fixture
def name(qdrant_server: str) -> Iterator[str]:
    name = f"limits-{uuid.uuid4().hex}"
    yield name
    client = qdrant_client(qdrant_server)
    for collection in client.get_collections().collections:
        if collection.name.startswith(name):
            client.delete_collection(collection.name)


NAMES = {
    "composed": "/films/Caf\u00e9 au lait.mp4",
    "decomposed": unicodedata.normalize("NFD", "/films/cafe\u0301_noir.mp4"),
    "shouted": "/films/CAFÉ-CRÈME 2.MP4",
    "plain": "/films/cafe.mp4",
    "wide": "/films/\uff43\uff41\uff46\u00e9 \ufb01n.mp4",
    "street": "/films/Straße.mp4",
    "japanese": "/films/赤い円.mp4",
}
WORDS = {
    "caf\u00e9": {"composed", "decomposed", "shouted", "wide"},
    unicodedata.normalize("NFD", "caf\u00e9"): {"composed", "decomposed", "shouted", "wide"},
    "CAFÉ noir": {"decomposed"},
    "noir café films": {"decomposed"},
    "caf": set(),
    "cafe": {"plain"},
    "fin": {"wide"},
    "STRASSE": {"street"},
    "円": {"japanese"},
    "crème-café": {"shouted"},
    "café_2": {"shouted"},
    "--": set(NAMES),
}


@pytest.fixture(params=["MemoryStore", "own store", "Qdrant memory", "folder", "server"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VideoStore]:
    """Each kind of store, with a video of each name."""
    if request.param == "MemoryStore":
        store: VideoStore = MemoryStore()
    elif request.param == "own store":
        store = SqliteStore(f"sqlite://{tmp_path / 'rows.db'}")
    elif request.param == "Qdrant memory":
        store = QdrantStore(":memory:")
    elif request.param == "folder":
        store = QdrantStore(tmp_path / "store")
    else:
        store = QdrantStore(request.getfixturevalue("qdrant_server"), request.getfixturevalue("name"))
    with store:
        store.create(METADATA)
        store.write([row(n, path) for n, path in enumerate(NAMES.values())])
        yield store


def test_words_mean_the_same_in_every_store(named: VideoStore) -> None:
    of_path = {path: kind for kind, path in NAMES.items()}
    for words, expected in WORDS.items():
        hits = named.search(QUERY, limit=20, filter=VideoFilter(words=words))
        assert {of_path[hit.path] for hit in hits if hit.path} == expected, words


def test_words_follow_a_file_that_moves(named: VideoStore) -> None:
    moved = VideoFile("/elsewhere/Th\u00e9.mp4", 1, 2, row(0).video_id)
    named.update_path(moved)
    for words, found in {"thé": True, "elsewhere": True, "lait": False}.items():
        assert bool(named.search(QUERY, filter=VideoFilter(words=words))) == found


def test_words_are_distinct_and_in_their_order() -> None:
    assert words_of("B_a.B (a) 12ab") == ["b", "a", "12ab"]
    assert words_of("") == []


def test_a_collection_of_another_program_is_searched_in_its_texts(qdrant_server: str, name: str) -> None:
    client = qdrant_client(qdrant_server)
    client.create_collection(name, vectors_config=models.VectorParams(size=WIDTH, distance=models.Distance.COSINE))
    titles = ["A red ball", "Redder than red", "blue"]
    points = [models.PointStruct(id=n, vector=QUERY.tolist(), payload={"title": t}) for n, t in enumerate(titles)]
    client.upsert(name, points)
    layout = PointLayout(vector="", title="title")

    def found(words: str) -> set[int | str]:
        store = QdrantStore(client, name, space=fake_space(), layout=layout, trust_foreign=True)
        with pytest.warns(UserWarning, match="taken to be"):
            return {hit.id for hit in store.search(QUERY, filter=VideoFilter(words=words))}

    assert found("red") == {0, 1}  # anywhere, as long as there is no text index
    assert found("ed ball") == {0}
    index = models.TextIndexParams(
        type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WORD, lowercase=True
    )
    client.create_payload_index(name, "title", index)
    assert found("RED") == {0, 1}
    assert found("ed") == set()


def test_words_that_a_collection_does_not_keep_are_said(qdrant_server: str, name: str) -> None:
    """As an earlier version made it: without the index and the field, which no ingestion makes up."""
    with QdrantStore(qdrant_server, name) as store:
        store.create(METADATA)
        store.write([row(0)])
        store.client.delete_payload_index(name, "words")
        store.client.delete_payload(name, ["words"], [row(0).id])
    for act in (lambda store: None, lambda store: store.create(METADATA)):
        with QdrantStore(qdrant_server, name) as store:
            act(store)
            with pytest.raises(StoreError, match="keeps no words of its paths"):
                store.search(QUERY, filter=VideoFilter(words="films"))
            assert store.search(QUERY)


ROWS = [row(n, f"/films/{n}.mp4", segment) for n in range(20) for segment in range(3)]


def answers(store: QdrantStore) -> list[Any]:
    """Everything that a store answers, with the details that limits could change."""
    queries = np.random.default_rng(5).normal(size=(7, WIDTH))
    asked: list[SearchRequest] = [
        SearchRequest(limit=12),
        SearchRequest(limit=5, offset=5, per_video=2),
        SearchRequest(limit=4, rerank="maxsim", candidates=40),
        SearchRequest(limit=4, filter=VideoFilter(words="films mp4", max_duration=7)),
    ]
    found = [
        [
            [(hit.id, round(hit.score, 4), hit.timestamp) for hit in hits]
            for hits in store.search_batch(queries, request)
        ]
        for request in asked
    ]
    one = [[hit.id for hit in store.search(queries[0], request)] for request in asked]
    read = sorted(str(segment.id) for segment in store.read(ReadRequest(vectors=True, frames=True)))
    records = sorted(record.video_id for record in store.records())
    return [found, one, read, records, store.count(), store.count_videos()]


def assert_same_hits(hits: list[list[Hit]], expected: list[list[Hit]]) -> None:
    assert [[hit.id for hit in row] for row in hits] == [[hit.id for hit in row] for row in expected]


def test_requests_are_sized_by_bytes(
    qdrant_server: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FlakyProxy(qdrant_server, lambda *_: None) as proxy, QdrantStore(proxy.url, name) as store:
        store.create(METADATA)
        store.write(ROWS)
        usual, large = answers(store), proxy.largest
        store.delete(list(store.records()))
        monkeypatch.setattr(_limits, "_REQUEST_BYTES", 20_000)
        proxy.largest, before = 0, len(proxy.requests)
        store.write(ROWS)
        assert answers(store) == usual
        assert proxy.largest < 20_000 < large
        assert len(proxy.requests) - before > 20
        with QdrantStore(tmp_path / "copy") as copied:
            copy_collection(store, copied, progress=False)
            assert contents(copied).keys() == contents(store).keys()
        proxy.largest = 0
        with QdrantStore(tmp_path / "copy") as copied, QdrantStore(proxy.url, f"{name}-back") as back:
            copy_collection(copied, back, progress=False)
        assert proxy.largest < 20_000


def test_what_a_server_refuses_for_its_size_is_halved(qdrant_server: str, name: str) -> None:
    with FlakyProxy(qdrant_server, lambda *_: None) as proxy, QdrantStore(proxy.url, name) as store:
        store.create(METADATA)
        proxy.most = 12_000
        store.write(ROWS)
        assert (store.count(), store.count_videos()) == (60, 20)
        with pytest.raises(StoreError, match=r"refuses a single segment for its size.*answers 413"):
            store.write([row(99, frames=200)])
        store._collection.limits = Limits(hits=1)  # many small searches in a request
        proxy.most = 2_000
        whole = QdrantStore(qdrant_server, name)
        for rerank in (None, "maxsim"):
            request = SearchRequest(limit=4, rerank=rerank, candidates=20)
            queries = np.random.default_rng(3).normal(size=(5, WIDTH))
            assert_same_hits(store.search_batch(queries, request), whole.search_batch(queries, request))


@pytest.mark.parametrize("quantization", ["none", "scalar"])
def test_strict_mode_is_met(qdrant_server: str, name: str, quantization: Any, tmp_path: Path) -> None:
    with QdrantStore(qdrant_server, name) as store:
        store.create(METADATA, CollectionOptions(quantization=quantization))
        store.write(ROWS)
        usual = answers(store)
        strict = models.StrictModeConfig(
            enabled=True,
            max_query_limit=9,
            max_timeout=10,
            unindexed_filtering_retrieve=False,
            unindexed_filtering_update=False,
            search_max_oversampling=1.5,
            search_allow_exact=False,
            upsert_max_batchsize=7,
            condition_max_size=15,
        )
        store.client.update_collection(name, strict_mode_config=strict)
    with QdrantStore(qdrant_server, name) as store:
        *found, count, number = answers(store)
        assert found == usual[:-2]
        assert (count, number) == pytest.approx(usual[-2:], rel=0.3)  # exact counts are exact searches

        async def search() -> list[Any]:
            async with AsyncQdrantStore(qdrant_server, name) as other:
                return [hit.id for hit in await other.search(QUERY, limit=12)]

        assert asyncio.run(search()) == [hit.id for hit in store.search(QUERY, limit=12)]
        ids, videos = [row.id for row in ROWS], [row.video_id for row in ROWS[::3]]
        for request in (ReadRequest(ids=ids), ReadRequest(field="video_id", values=videos * 2)):
            assert sorted(str(segment.id) for segment in store.read(request)) == sorted(ids)
        with QdrantStore(tmp_path / "copy") as copied:
            assert copy_collection(store, copied, progress=False).written == len(ROWS)
        with pytest.raises(StoreError, match=r"Exact search disabled"):
            store.search(QUERY, exact=True)
        records = list(store.records())
        store.delete(records[:15])
        assert {record.video_id for record in store.records()} == {record.video_id for record in records[15:]}
        store.write(ROWS)
        store.update_path(replace(VideoFile("/films/moved.mp4", 1, 1), video_id=ROWS[0].video_id))
        assert store.search(QUERY, limit=20, filter=VideoFilter(words="moved"))
