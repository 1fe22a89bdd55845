"""Searches in batches, in pages, with a threshold, re-ranked, on asyncio, and between tenants and aliases."""

from __future__ import annotations

import asyncio
import inspect
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import torch
from qdrant_client import AsyncQdrantClient, models

from benchmarks.server import QdrantProcess
from dits_adapter import AsyncQdrantStore
from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores import ingest as ingest_module
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant._making import INDEXING_THRESHOLD
from dits_adapter.stores.qdrant._search import BATCH
from dits_adapter.stores.qdrant.aliases import rebuild, switch
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import Hit
from dits_adapter.stores.rows import VideoFile
from dits_adapter.xpool import XPool, XPoolReranker
from tests.stores.conftest import STORAGES, Storage, contents, storage_of
from tests.stores.fakes import FakeEncoder, fake_space, unit, write_video
from tests.stores.server import qdrant_client
from tests.waiting import PATIENCE


def queries(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def library(folder: Path, videos: int = 12) -> Path:
    """Videos of one to five segments."""
    for seed in range(videos):
        write_video(folder / f"{seed}.mp4", seed=seed, segments=seed % 5 + 1)
    return folder


def ingest(store: QdrantStore, folder: Path, encoder: FakeEncoder | None = None, **options: Any) -> Any:
    return ingest_module.ingest(store, folder, encoder or FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


def same(found: list[Hit], expected: list[Hit]) -> bool:
    return [hit.id for hit in found] == [hit.id for hit in expected] and np.allclose(
        [hit.score for hit in found], [hit.score for hit in expected], atol=1e-6
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module", params=STORAGES)
def filled(
    request: pytest.FixtureRequest, films: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[QdrantStore]:
    with storage_of(request, tmp_path_factory.mktemp("filled")) as storage:
        ingest(storage.open(), films)
        yield storage.open(space=fake_space())


@pytest.mark.parametrize(
    "ask", [{}, {"limit": 3}, {"limit": 20}, {"limit": 4, "per_video": 3}, {"limit": 2, "offset": 3}]
)
def test_a_batch_finds_what_each_query_finds(filled: QdrantStore, ask: dict[str, int]) -> None:
    batch = queries(BATCH + 6)
    found = filled.search_batch(batch, **ask)
    assert len(found) == len(batch)
    for query, hits in zip(batch, found, strict=True):
        assert same(hits, filled.search(query, **ask))
        assert all(hit.timestamp is not None for hit in hits)
    assert filled.search_batch(np.empty((0, 8))) == []


def test_a_batch_sees_past_a_video_whose_segments_crowd_around_the_query() -> None:
    layout = PointLayout(vector="", video="clip")
    store = QdrantStore(":memory:", space=fake_space(), layout=layout, trust_foreign=True)
    cosine = models.VectorParams(size=8, distance=models.Distance.COSINE)
    store.client.create_collection("videos", vectors_config=cosine)
    near, far = np.eye(8)[:2]
    rows = [("long", near + n / 1000 * far) for n in range(40)] + [("short", near + far)]
    points = [
        models.PointStruct(id=n, vector=row.tolist(), payload={"clip": clip}) for n, (clip, row) in enumerate(rows)
    ]
    store.client.upsert("videos", points)
    with pytest.warns(UserWarning, match="taken to be"):
        found = store.search_batch([near, near + far / 9], limit=2)
    assert [[hit.video_id for hit in hits] for hits in found] == [["long", "short"]] * 2


@pytest.mark.parametrize("distance", [models.Distance.EUCLID, models.Distance.MANHATTAN])
def test_videos_of_a_distance_are_ordered_by_the_least(distance: models.Distance) -> None:
    layout = PointLayout(vector="", video="clip")
    store = QdrantStore(":memory:", space=fake_space(), layout=layout, trust_foreign=True)
    store.client.create_collection("videos", vectors_config=models.VectorParams(size=8, distance=distance))
    points = [
        models.PointStruct(id=n, vector=(np.eye(8)[0] * (n + 1)).tolist(), payload={"clip": f"{n % 4}"})
        for n in range(8)
    ]
    store.client.upsert("videos", points)
    with pytest.warns(UserWarning, match="taken to be"):
        hits = store.search(np.eye(8)[0], limit=3)
    assert [hit.id for hit in hits] == [0, 1, 2]
    assert [hit.id for hit in store.search(np.eye(8)[0], limit=2, offset=1)] == [1, 2]
    assert [hit.id for hit in store.search_like(0, limit=4)] == [1, 2, 3, 4]
    assert [hit.id for hit in store.search_like(0, limit=2, offset=1)] == [2, 3]


def test_a_batch_of_a_collection_without_groups() -> None:
    store = QdrantStore(":memory:", space=fake_space(), layout=PointLayout(vector=""), trust_foreign=True)
    store.client.create_collection(
        "videos", vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE)
    )
    points = [models.PointStruct(id=n, vector=row.tolist(), payload={}) for n, row in enumerate(queries(30, 1))]
    store.client.upsert("videos", points)
    with pytest.warns(UserWarning, match="taken to be"):
        found = store.search_batch(queries(5), limit=4, offset=2)
    for query, hits in zip(queries(5), found, strict=True):
        cosines = queries(30, 1) @ query / np.linalg.norm(queries(30, 1), axis=1)
        assert [hit.id for hit in hits] == list(np.argsort(-cosines)[2:6])


def test_pages_follow_each_other(filled: QdrantStore) -> None:
    query = queries(1)[0]
    whole = filled.search(query, limit=12, per_video=2)
    pages = [filled.search(query, limit=5, per_video=2, offset=offset) for offset in (0, 5, 10, 15)]
    assert same([hit for page in pages for hit in page], whole)
    assert len({hit.video_id for hit in whole}) == 12
    assert pages[-1] == []


def test_a_score_is_a_threshold(filled: QdrantStore) -> None:
    for query in queries(5):
        every = filled.search(query, limit=12, per_video=5)
        scores = sorted(hit.score for hit in every)
        least = (scores[15] + scores[16]) / 2
        expected = [hit for hit in every if hit.score > least]
        assert same(filled.search(query, limit=12, per_video=5, min_score=least), expected)
        assert filled.search(query, min_score=1.1) == []


def test_maxsim_ranks_by_the_nearest_frame(filled: QdrantStore, films: Path) -> None:
    segments = list(FakeEncoder().iter_segments(map(str, sorted(films.iterdir())), on_error=pytest.fail))
    for query in queries(4):
        unit = query / np.linalg.norm(query)
        best: dict[str, float] = {}
        for segment in segments:
            score = float((segment.frame_vectors @ unit).max())
            best[segment.path] = max(score, best.get(segment.path, -1))
        expected = sorted(best, key=lambda path: -best[path])[:4]
        hits = filled.search(query, limit=4, rerank="maxsim")
        assert [hit.path for hit in hits] == expected
        assert [hit.score for hit in hits] == pytest.approx([best[path] for path in expected], abs=1e-5)
        assert same(filled.search_batch(query[None], limit=4, rerank="maxsim")[0], hits)


def test_candidates_limit_what_is_reranked(filled: QdrantStore) -> None:
    query = queries(1)[0]
    nearest = sorted(filled.search(query, limit=12, per_video=5), key=lambda hit: -hit.score)[:6]
    hits = filled.search(query, limit=3, rerank="maxsim", candidates=6)
    assert {hit.id for hit in hits} <= {hit.id for hit in nearest}
    with pytest.raises(InputError, match="candidates is 5"):
        filled.search(query, limit=3, per_video=2, rerank="maxsim", candidates=5)
    with pytest.raises(InputError, match="rerank is 'xpool'"):
        filled.search(query, rerank="xpool")  # type: ignore[arg-type]


class Segment(NamedTuple):
    id: int
    path: str
    pooled: np.ndarray
    frames: np.ndarray


LONG, SHORT, EACH = 7, 30, 120
AXIS = np.eye(8)[0]


@pytest.fixture(scope="module", params=STORAGES)
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[QdrantStore, list[Segment]]]:
    """Long videos with all their segments nearer to the first axis than any of the short ones; nearest first."""
    random = np.random.default_rng(0)
    segments = []
    for video in range(LONG + SHORT):
        for n in range(EACH if video < LONG else 1):
            angle = 0.02 * (video + 1) + 1e-4 * n
            pooled = np.r_[np.cos(angle), np.sin(angle) * unit(random.normal(size=7))]
            segments.append(Segment(len(segments), f"{video}.mp4", pooled, unit(random.normal(size=(4, 8)))))
    points = [
        models.PointStruct(
            id=segment.id,
            vector={"video": segment.pooled.tolist(), "frames": segment.frames.tolist()},
            payload={"video_id": str(uuid.uuid5(uuid.NAMESPACE_URL, segment.path)), "path": segment.path},
        )
        for segment in segments
    ]
    with storage_of(request, tmp_path_factory.mktemp("crowded")) as storage:
        store = storage.open()
        store.create(CollectionMetadata(space=fake_space()))
        store.write_points(points)
        yield store, segments


def first_of_each(segments: list[Segment], count: int) -> list[Segment]:
    videos = groupby(segments, key=lambda segment: segment.path)
    return [segment for _, video in videos for segment in islice(video, count)]


def by_best_frame(segments: list[Segment]) -> list[Segment]:
    return sorted(segments, key=lambda segment: -segment.frames[:, 0].max())


def ids(hits: list[Hit]) -> list[Any]:
    return [hit.id for hit in hits]


@pytest.mark.parametrize("limit", [10, LONG + SHORT, 50])
def test_long_videos_leave_room_for_the_others(crowded: tuple[QdrantStore, list[Segment]], limit: int) -> None:
    store, segments = crowded
    expected = [segment.id for segment in first_of_each(segments, 1)]
    assert ids(store.search(AXIS, limit=limit)) == expected[:limit]
    assert ids(store.search(AXIS, limit=limit, offset=4)) == expected[4 : 4 + limit]
    assert list(map(ids, store.search_batch([AXIS, AXIS], limit=limit))) == [expected[:limit]] * 2


@pytest.mark.parametrize(("candidates", "per_video"), [(20, 1), (40, 2), (LONG + SHORT, 1)])
def test_what_is_reranked_is_spread_over_videos(
    crowded: tuple[QdrantStore, list[Segment]], candidates: int, per_video: int
) -> None:
    store, segments = crowded
    nearest = [one for one in first_of_each(segments, per_video) if int(one.path[:-4]) < candidates // per_video]
    ranked = by_best_frame(nearest)
    best = list(dict.fromkeys(segment.path for segment in ranked))[:10]
    expected = [segment.id for path in best for segment in ranked if segment.path == path]
    asked: dict[str, Any] = {"candidates": candidates, "per_video": per_video}
    assert ids(store.search(AXIS, rerank="maxsim", **asked)) == expected
    assert (
        ids(store.search(AXIS, rerank=lambda found: np.array([f[:, 0].max() for f in found]), **asked)) == expected
    )
    assert list(map(ids, store.search_batch([AXIS, AXIS], rerank="maxsim", **asked))) == [expected] * 2


def test_fewer_videos_have_more_segments_reranked(crowded: tuple[QdrantStore, list[Segment]]) -> None:
    store, segments = crowded
    pair = ["0.mp4", "1.mp4"]
    chosen = models.Filter(must=[models.FieldCondition(key="path", match=models.MatchAny(any=pair))])
    asked: dict[str, Any] = {"rerank": "maxsim", "candidates": 30, "limit": 1, "filter": chosen}
    (best, *_) = by_best_frame([one for one in first_of_each(segments, 15) if one.path in pair])
    assert best not in first_of_each(segments, 1)
    assert ids(store.search(AXIS, **asked)) == [best.id]
    assert list(map(ids, store.search_batch([AXIS, AXIS], **asked))) == [[best.id]] * 2


def test_nothing_is_reranked_where_nothing_is_found(filled: QdrantStore) -> None:
    nothing = models.Filter(must=[models.FieldCondition(key="path", match=models.MatchValue(value="no.mp4"))])
    assert filled.search(AXIS, rerank="maxsim", filter=nothing) == []
    assert filled.search(AXIS, rerank=pytest.fail, filter=nothing) == []
    assert filled.search_batch([AXIS, AXIS], rerank="maxsim", filter=nothing) == [[], []]


def test_xpool_reranks_as_the_head_scores(filled: QdrantStore) -> None:
    torch.manual_seed(0)
    head = XPool(8)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    query, text = queries(2, seed=3)
    hits = filled.search(query, limit=12, rerank=XPoolReranker(head, query, text), candidates=60)
    scores: dict[str, float] = {}
    for point, (payload, vectors) in contents(filled).items():
        frames = torch.tensor(vectors["frames"])[None]
        with torch.no_grad():
            score = head.eval().similarity(torch.tensor(query)[None], torch.tensor(text)[None], frames)
        scores[payload["path"]] = max(float(score), scores.get(payload["path"], -1.0))
        assert point
    expected = sorted(scores, key=lambda path: -scores[path])
    assert [hit.path for hit in hits] == expected
    assert [hit.score for hit in hits] == pytest.approx([scores[path] for path in expected], abs=1e-5)
    with pytest.raises(InputError, match=r"scores of shape \(3,\)"):
        filled.search(query, rerank=lambda frames: np.zeros(3))


def test_asyncio_finds_the_same(qdrant_server: str, tmp_path: Path) -> None:
    name = f"async-{uuid.uuid4().hex}"
    batch = queries(40)

    async def search_all(location: Any) -> list[list[Hit]]:
        async with AsyncQdrantStore(location, name, space=fake_space()) as store:
            assert (await store.open()).fingerprint == fake_space().fingerprint
            assert await store.count() == 33
            assert await store.search_batch(batch, limit=3) == await asyncio.gather(
                *(store.search(query, limit=3) for query in batch)
            )
            like = await store.search_like(chosen.id, limit=3, offset=1, per_video=2)
            assert same(like, expected_like)
            assert await store.metadata() == metadata
            return [await store.search(query, limit=4, rerank="maxsim", offset=1) for query in batch]

    async def with_a_client() -> list[list[Hit]]:
        client = AsyncQdrantClient(url=qdrant_server, timeout=int(PATIENCE), check_compatibility=False)
        found = await search_all(client)
        assert (await client.count(name)).count == 33  # still open
        await client.close()
        return found

    with QdrantStore(qdrant_server, name) as store:
        try:
            ingest(store, library(tmp_path))
            expected = [store.search(query, limit=4, rerank="maxsim", offset=1) for query in batch]
            chosen, metadata = expected[0][0], store.metadata()
            expected_like = store.search_like(chosen.id, limit=3, offset=1, per_video=2)
            assert asyncio.run(search_all(qdrant_server)) == expected
            assert asyncio.run(with_a_client()) == expected
        finally:
            store.client.delete_collection(name)

    async def unknown(search: str, query: Any) -> None:
        async with AsyncQdrantStore(qdrant_server, name) as store:
            await getattr(store, search)(query)

    for search, query in (("search", batch[0]), ("search_like", "7")):
        with pytest.raises(StoreError, match="has no collection"):
            asyncio.run(unknown(search, query))
    with pytest.raises(InputError, match=r"asyncio\.to_thread"):
        AsyncQdrantStore(":memory:")


def test_asyncio_offers_what_readers_of_a_server_have() -> None:
    """All of the store but what writes, lists or belongs to its own programs, with the same arguments."""
    writing = {"create", "delete", "finish", "bulk_load", "set_bias", "set_texts", "update_path"}
    writing |= {"write", "write_biases", "write_failures", "write_points", "write_texts"}
    listing = {"failures", "find", "find_said", "read", "records", "scroll"}
    of_programs = {"capabilities", "place", "resolve", "send", "translate_errors"}
    left_out = writing | listing | of_programs
    doors = [{name for name in dir(door) if not name.startswith("_")} for door in (QdrantStore, AsyncQdrantStore)]
    assert left_out < doors[0]
    attributes = {"client", "space", "tenant"}  # of the class there, of its objects here
    assert doors[0] - left_out == doors[1] | attributes
    assert attributes | {"location", "name"} <= vars(AsyncQdrantStore("http://localhost:1")).keys()
    for name in {"__init__", *doors[1]}:
        called, awaited = (inspect.getattr_static(door, name) for door in (QdrantStore, AsyncQdrantStore))
        if callable(called):
            signatures = [list(inspect.signature(method).parameters.values()) for method in (called, awaited)]
            bare = [[parameter.replace(annotation="") for parameter in of] for of in signatures]
            assert bare[0] == bare[1], name


def test_asyncio_says_that_a_server_is_dead(qdrant_process: Callable[..., QdrantProcess]) -> None:
    server = qdrant_process()
    server.kill()

    async def search() -> None:
        async with AsyncQdrantStore(server.url) as store:
            await store.search(queries(1)[0])

    with pytest.raises(StoreError, match="Is a Qdrant server running there"):
        asyncio.run(search())


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_least_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="min_score is"):
        QdrantStore(":memory:").search(queries(1)[0], min_score=score)


def test_a_nested_field_groups_in_batches_too() -> None:
    layout = PointLayout(vector="", video="meta.clip")
    store = QdrantStore(":memory:", space=fake_space(), layout=layout, trust_foreign=True)
    cosine = models.VectorParams(size=8, distance=models.Distance.COSINE)
    store.client.create_collection("videos", vectors_config=cosine)
    points = [
        models.PointStruct(id=n, vector=row.tolist(), payload={"meta": {"clip": n % 3}})
        for n, row in enumerate(queries(9, 1))
    ]
    store.client.upsert("videos", points)
    with pytest.warns(UserWarning, match="taken to be"):
        store.open()
    found = [store.search(query) for query in queries(3)]
    assert [{hit.video_id for hit in hits} for hits in found] == [{"0", "1", "2"}] * 3
    assert all(map(same, store.search_batch(queries(3)), found))
    with pytest.raises(InputError, match="is for one query"):
        store.search_batch(queries(2), rerank=lambda frames: np.ones(1))


def test_a_video_that_a_server_returns_again_takes_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = PointLayout(vector="", video="names")
    store = QdrantStore(":memory:", space=fake_space(), layout=layout, trust_foreign=True)
    cosine = models.VectorParams(size=8, distance=models.Distance.COSINE)
    store.client.create_collection("videos", vectors_config=cosine)
    names = {"names": ["long", "x9"]}
    points = [models.PointStruct(id=n, vector=queries(1)[0].tolist(), payload=names) for n in range(20)]
    store.client.upsert("videos", points)
    again = models.ScoredPoint(id=1, version=0, score=0.5, payload=names)
    asked = []

    def groups(*_: object, **__: object) -> models.GroupsResult:  # an excluded name does not exclude the other
        asked.append(1)
        return models.GroupsResult(groups=[models.PointGroup(id="long", hits=[again])])

    with pytest.warns(UserWarning, match="taken to be"):
        store.open()
    monkeypatch.setattr(store.client, "query_points_groups", groups)
    assert len(store.search(queries(1)[0], limit=3, locate=False)) == 1
    assert len(asked) == 2


def test_frames_are_left_unread_when_nobody_asks(filled: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    located = filled.search(queries(1)[0])
    monkeypatch.delattr(type(filled.client), "retrieve")
    found = filled.search(queries(1)[0], locate=False)
    assert same(found, located)
    assert {hit.timestamp for hit in found} == {None}


def test_threads_that_come_first_share_a_folder(tmp_path: Path) -> None:
    with QdrantStore(tmp_path / "store") as store:
        ingest(store, library(tmp_path / "library"))
        expected = store.search(queries(1)[0])
    for _ in range(10):
        with QdrantStore(tmp_path / "store") as store, ThreadPoolExecutor(8) as pool:
            assert all(hits == expected for hits in pool.map(store.search, [queries(1)[0]] * 8))


class TestTenants:
    def test_nobody_sees_or_touches_anothers_videos(self, storage: Storage, tmp_path: Path) -> None:
        folder = library(tmp_path / "library")
        write_video(folder / "broken.mp4", "broken")
        report = ingest(storage.open(tenant="acme"), folder)
        assert (report.videos, len(report.failed)) == (12, 1)
        write_video(tmp_path / "other" / "only.mp4", seed=99)
        shared = write_video(tmp_path / "other" / "shared.mp4", seed=3, segments=4)
        assert ingest(storage.open(tenant="zeta"), tmp_path / "other").videos == 2

        acme, zeta = ({"tenant": name, "space": fake_space()} for name in ("acme", "zeta"))
        assert storage.open(**acme).count() == 33
        assert storage.open(**zeta).count() == 6
        found = storage.open(**zeta).search(queries(1)[0], limit=50, per_video=50)
        assert {Path(hit.path or "").name for hit in found} == {"only.mp4", "shared.mp4"}
        assert len(storage.open(**zeta).search_batch(queries(2), limit=50)[1]) == 2
        late = models.Filter(must=[models.FieldCondition(key="start", range=models.Range(gt=1))])
        assert len(storage.open(**zeta).search(queries(1)[0], limit=50, per_video=9, filter=late)) == 4

        shared.unlink()
        removed = ingest(storage.open(tenant="zeta"), tmp_path / "other", sync=True).removed
        assert removed == [str(shared)]
        assert storage.open(**zeta).count() == 2
        assert storage.open(**acme).count() == 33
        assert ingest(storage.open(tenant="acme"), folder).present == 12

    def test_a_tenant_must_be_named_where_there_are_some_and_only_there(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        folder = library(tmp_path, 2)
        ingest(storage.open(tenant="acme"), folder)
        with pytest.raises(StoreError, match="keeps tenants apart: say which"):
            storage.open().search(queries(1)[0])
        with pytest.raises(StoreError, match="keeps tenants apart: say whose"):
            ingest(storage.open(), folder)
        assert storage.open(tenant="nobody").search(queries(1)[0]) == []
        with pytest.raises(InputError, match="tenant is empty"):
            storage.open(tenant="")
        store = QdrantStore(":memory:")
        ingest(store, folder)
        with pytest.raises(StoreError, match="does not keep tenants apart; leave out"):
            QdrantStore(store.client, tenant="acme").search(queries(1)[0])
        with pytest.raises(StoreError, match="does not keep tenants apart; for 'acme'"):
            ingest(QdrantStore(store.client, tenant="acme"), folder)

    def test_what_ingestion_asks_is_confined_too(self, storage: Storage, tmp_path: Path) -> None:
        for tenant in ("acme", "zeta"):
            ingest(storage.open(tenant=tenant), library(tmp_path / tenant, 2))
        mine = storage.open(tenant="acme")
        (first, *_) = records = mine.records()
        assert {Path(record.path).parent.name for record in records} == {"acme"}
        moved = VideoFile("/moved.mp4", 1, 2, first.video_id)
        nobody = storage.open()
        for request in (nobody.records, lambda: nobody.delete(records), lambda: nobody.update_path(moved)):
            with pytest.raises(StoreError, match="keeps tenants apart: say which"):
                request()
        assert storage.open(tenant="zeta").count() == storage.open(tenant="acme").count() == 3
        mine = storage.open(tenant="acme")
        mine.update_path(moved)
        assert "/moved.mp4" in {record.path for record in mine.records()}
        mine.delete(records)
        assert mine.records() == []
        assert {Path(record.path).parent.name for record in storage.open(tenant="zeta").records()} == {"zeta"}
        with pytest.raises(StoreError, match="has no collection 'nothing'"):
            storage.open("nothing").records()

    def test_a_server_has_an_index_for_each(self, qdrant_server: str, tmp_path: Path) -> None:
        name = f"tenants-{uuid.uuid4().hex}"
        with QdrantStore(qdrant_server, name, tenant="acme") as store:
            try:
                ingest(store, library(tmp_path, 2))
                info = store.client.get_collection(name)
                assert isinstance(info.config.params.vectors, dict)
                hnsw = info.config.params.vectors["video"].hnsw_config
                assert hnsw is not None
                assert (hnsw.m, hnsw.payload_m) == (0, 16)
                tenant = info.payload_schema["tenant"].params
                assert isinstance(tenant, models.KeywordIndexParams)
                assert tenant.is_tenant
            finally:
                store.client.delete_collection(name)


@pytest.fixture
def name(qdrant_server: str) -> Iterator[str]:
    """A name that is free, and is again afterwards, with all that was built under it."""
    name = f"built-{uuid.uuid4().hex}"
    yield name
    client = qdrant_client(qdrant_server)
    for collection in client.get_collections().collections:
        if collection.name.startswith(name):
            client.delete_collection(collection.name)


class TestBulk:
    @pytest.mark.parametrize("own", [False, True], ids=["a URL", "a client of one's own"])
    def test_the_index_waits_for_the_end(self, qdrant_server: str, name: str, tmp_path: Path, own: bool) -> None:
        location = qdrant_client(qdrant_server) if own else qdrant_server
        with QdrantStore(location, name) as store:

            def threshold() -> int | None:
                return store.client.get_collection(name).config.optimizer_config.indexing_threshold

            encoder = FakeEncoder()
            seen = []
            encoder.before = lambda path: seen.append(threshold())
            report = ingest(store, library(tmp_path), encoder, bulk=True)
            assert (report.videos, set(seen)) == (12, {0})
            assert threshold() == INDEXING_THRESHOLD
            assert store.client.get_collection(name).status == models.CollectionStatus.GREEN

    def test_after_a_kill_the_next_run_lets_the_server_index(
        self, qdrant_server: str, name: str, tmp_path: Path
    ) -> None:
        with QdrantStore(qdrant_server, name) as store:
            ingest(store, library(tmp_path))
            store.client.update_collection(
                name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0)
            )
            ingest(store, tmp_path)
            config = store.client.get_collection(name).config.optimizer_config
            assert config.indexing_threshold == INDEXING_THRESHOLD

            class Stop(Exception):
                pass

            def stop(path: str) -> None:
                raise Stop

            encoder = FakeEncoder()
            encoder.before = stop
            write_video(tmp_path / "new.mp4", seed=77)
            with pytest.raises(Stop):
                ingest(store, tmp_path, encoder, bulk=True)
            config = store.client.get_collection(name).config.optimizer_config
            assert config.indexing_threshold == INDEXING_THRESHOLD


class TestRebuild:
    @pytest.mark.parametrize("own", [False, True], ids=["a URL", "a client of one's own"])
    def test_searches_go_on_while_another_clip_takes_over(
        self, qdrant_server: str, name: str, tmp_path: Path, own: bool
    ) -> None:
        folder = library(tmp_path)
        query = queries(1)[0]
        location = qdrant_client(qdrant_server) if own else qdrant_server

        def build(encoder: FakeEncoder, **options: Any) -> str:
            with QdrantStore(location, name) as store:
                report, new = rebuild(store, folder, encoder, progress=False, **options)  # type: ignore[arg-type]
                assert report.failed == {}
            return new

        blue = build(FakeEncoder(fake_space(0)))
        with QdrantStore(qdrant_server, name, space=fake_space(0)) as old:
            before = old.search(query)
            unsaid = QdrantStore(qdrant_server, name)  # whose caller leaves the space to the collection
            assert unsaid.search(query) == before
            green_encoder = FakeEncoder(fake_space(1))
            green_encoder.before = lambda path: _require(old.search(query) == before)
            green = build(green_encoder)
            assert green != blue
            assert old.search(query) == before  # it opened the blue one, and its queries are of that space
            with QdrantStore(qdrant_server, name, space=fake_space(1)) as new:
                assert new.collection == name
                assert new.search(query)
                assert new.collection == green
            with pytest.raises(SpaceMismatchError, match="fake-0"):
                QdrantStore(qdrant_server, name, space=fake_space(0)).search(query)

            old.resolve()
            assert old.search(query) == before  # looking up what the name means now changes nothing

            with QdrantStore(qdrant_server, name) as store:
                switch(store, blue)
                with pytest.raises(StoreError, match="has no collection 'typo'"):
                    switch(store, "typo")
                assert store.resolve() == blue
            with QdrantStore(qdrant_server, name, space=fake_space(0)) as again:
                assert again.search(query) == before
            assert build(FakeEncoder(fake_space(1)), drop_old=True) == green
            with pytest.raises(SpaceMismatchError, match="fake-1"):  # not an answer of another space
                old.search(query)
            with pytest.raises(SpaceMismatchError, match="by now"):
                unsaid.search(query)

    def test_a_killed_one_goes_on_and_the_alias_waits(self, qdrant_server: str, name: str, tmp_path: Path) -> None:
        class Stop(BaseException):
            pass

        def stop(path: str) -> None:
            if path.endswith("7.mp4"):
                raise Stop

        folder = library(tmp_path)
        encoder = FakeEncoder()
        encoder.before = stop
        with QdrantStore(qdrant_server, name) as store:
            with pytest.raises(Stop):
                rebuild(store, folder, encoder, progress=False)  # type: ignore[arg-type]
            assert store.resolve() is None
            encoder = FakeEncoder()
            report, _ = rebuild(store, folder, encoder, progress=False)  # type: ignore[arg-type]
            assert report.present > 0
            assert store.search(queries(1)[0])

    def test_killed_at_any_request_it_leaves_one_whole_collection(
        self, qdrant_server: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Kill before each request that changes something; then search, and run the same command to its end."""

        class Killed(BaseException):
            pass

        folder = library(tmp_path, 2)
        send = httpx.Client.send
        changes = left = 0

        def count_down(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
            nonlocal changes, left
            if request.method != "GET" and not re.search("/(query|scroll|count|batch)", request.url.path):
                changes += 1
                left -= 1
            if left <= 0:  # a dead process sends nothing any more
                raise Killed
            return send(self, request, **options)

        def build(seed: int) -> str:
            with QdrantStore(qdrant_server, name) as store:
                encoder = FakeEncoder(fake_space(seed))
                return rebuild(store, folder, encoder, drop_old=True, progress=False)[1]  # type: ignore[arg-type]

        old, seen = build(0), set()
        step = 0
        while True:
            step += 1
            left, changes = step + 1, 0
            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(httpx.Client, "send", count_down)
                build(step % 2)
            was_killed = left <= 0
            with QdrantStore(qdrant_server, name) as store:
                current = store.resolve()
                seen.add(current == old)
                assert store.count() == 3
                assert len(store.search(queries(1)[0])) == 2
                if was_killed:
                    new = build(step % 2)
                    assert store.resolve() == new != old
                collections = [c.name for c in store.client.get_collections().collections]
                assert [other for other in collections if other.startswith(name)] == [store.resolve()]
                old = store.resolve()
            if not was_killed:
                break
        assert changes > 5
        assert seen == {True, False}

    def test_what_needs_no_rebuild_or_cannot_have_one(self, qdrant_server: str, name: str, tmp_path: Path) -> None:
        folder = library(tmp_path / "library", 3)
        write_video(tmp_path / "bad" / "broken.mp4", "broken")
        with QdrantStore(qdrant_server, name) as store:
            ingest(store, folder)

            def again(seed: int, paths: Path = folder, **options: Any) -> str:
                encoder = FakeEncoder(fake_space(seed))
                return rebuild(store, paths, encoder, progress=False, **options)[1]  # type: ignore[arg-type]

            with pytest.raises(InputError, match="of this embedding space and cut like this already"):
                again(0)
            with pytest.raises(InputError, match="is a collection and no alias"):
                again(1)
            with pytest.raises(StoreError, match="no video could be read"):
                again(1, tmp_path / "bad", drop_old=True)
            assert store.resolve() == name
            assert again(1, drop_old=True) == store.resolve() != name
            with pytest.raises(StoreError, match="has no collection 'nothing'"):
                switch(store, "nothing")
            assert store.resolve() != name
        with pytest.raises(InputError, match="only a server has aliases"):
            rebuild(QdrantStore(":memory:"), folder, FakeEncoder())  # type: ignore[arg-type]

    def test_what_could_not_be_read_and_tenants_are_not_lost(
        self, qdrant_server: str, name: str, tmp_path: Path
    ) -> None:
        folder = library(tmp_path / "library", 3)
        encoder = FakeEncoder(fake_space(1))
        with QdrantStore(qdrant_server, name) as store:
            _, old = rebuild(store, folder, FakeEncoder(), progress=False)  # type: ignore[arg-type]
            write_video(folder / "1.mp4", "broken")
            with pytest.raises(StoreError, match=r"1 file could not be read.*nothing was deleted"):
                rebuild(store, folder, encoder, drop_old=True, progress=False)  # type: ignore[arg-type]
            assert store.resolve() == old
        with QdrantStore(qdrant_server, f"{name}-tenants", tenant="acme") as store:
            ingest(store, library(tmp_path / "good", 2))
            for asked in (store, QdrantStore(qdrant_server, f"{name}-tenants")):
                with pytest.raises(InputError, match="keeps tenants apart"):
                    rebuild(asked, folder, encoder, drop_old=True, progress=False)  # type: ignore[arg-type]
            assert store.count() == 3

    def test_what_other_folders_had_is_not_lost(self, qdrant_server: str, name: str, tmp_path: Path) -> None:
        one, other = library(tmp_path / "one", 3), library(tmp_path / "other" / "deep", 6)
        write_video(tmp_path / "other" / "b" / "7.mp4", seed=7)
        with QdrantStore(qdrant_server, name) as store:

            def again(*paths: Path, **options: Any) -> str:
                encoder = FakeEncoder(fake_space(1))
                return rebuild(store, iter(paths), encoder, progress=False, **options)[1]  # type: ignore[arg-type]

            ingest(store, tmp_path)  # three of `other` have the content of those of `one`
            with pytest.raises(
                StoreError, match=rf"has videos of {tmp_path}/other/b, {other}, which would be lost"
            ):
                again(one, drop_old=True)
            assert store.resolve() == name
            (one / "0.mp4").unlink()  # what is gone from the folders is not missed, nor what has moved
            (tmp_path / "other").rename(tmp_path / "moved")
            new = again(tmp_path / "moved", one, drop_old=True)
            assert store.resolve() == new
            collections = [c.name for c in store.client.get_collections().collections if c.name.startswith(name)]
            assert collections == [new]

    def test_the_commands(
        self, qdrant_server: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "empty").mkdir()
        where = ["--store", qdrant_server, "--collection", name]
        with QdrantStore(qdrant_server, f"{name}-x") as store:
            store.create(CollectionMetadata(space=fake_space()))
        assert main(["switch", f"{name}-x", *where]) == 0
        assert f"{name} is now {name}-x" in capsys.readouterr().out
        assert main(["rebuild", str(tmp_path / "empty"), *where]) == 1
        assert f"no video could be read; '{name}' was left as it was" in capsys.readouterr().err


def _require(condition: bool) -> None:
    assert condition
