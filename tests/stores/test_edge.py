"""A folder behind the methods of `QdrantClient`: what it answers, what it outlives, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.qdrant.edge._client import EdgeClient
from dits_adapter.stores.qdrant.edge._collection import COLLECTION
from dits_adapter.stores.qdrant.edge._folder import GONE, NEW
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.fakes import FakeEncoder, fake_space, write_video

WIDTH, FRAMES, POINTS = 8, 3, 300
COSINE = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
MANY = models.VectorParams(
    size=WIDTH,
    distance=models.Distance.COSINE,
    multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    hnsw_config=models.HnswConfigDiff(m=0),
)
RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(POINTS, WIDTH))
FRAME_VECTORS = RNG.normal(size=(POINTS, FRAMES, WIDTH))
QUERIES = RNG.normal(size=(10, WIDTH))
GROUPS = np.r_[np.zeros(200, int), RNG.integers(1, 20, size=POINTS - 200)]
"""Two thirds of all points are of one group."""


def payload(n: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "group": f"g{GROUPS[n]}",
        "number": n,
        "share": n / 256,
        "text": f"a {'red' if n % 3 else 'blue'} ball number {n}",
        "tags": [f"t{n % 4}", f"t{n % 5}"][: n % 3],
        "when": datetime(2024, 1, 1 + n % 28, tzinfo=timezone.utc).isoformat(),
        "deep": {"mixed": n % 7 if n % 2 else str(n % 7)},
        "parts": [{"kind": "a", "size": n % 10}, {"kind": "b", "size": n % 6}],
        "nothing": None if n % 2 else 0,
    }
    if n % 10 == 0:
        del fields["text"]
    return fields


def fill(client: Any, collection: str = "videos") -> None:
    client.create_collection(collection, vectors_config={"video": COSINE, "frames": MANY}, metadata={"a": [1]})
    points = [
        models.PointStruct(
            id=n if n % 2 else str(uuid.UUID(int=n)),
            vector={"video": VECTORS[n].tolist(), "frames": FRAME_VECTORS[n].tolist()} if n % 50 else {},
            payload=payload(n),
        )
        for n in range(POINTS)
    ]
    client.upsert(collection, points, wait=True)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EdgeClient]:
    client = EdgeClient(tmp_path / "store")
    yield client
    client.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EdgeClient, QdrantClient]]:
    """The same points in a folder and in memory, whose answers are the reference."""
    both = EdgeClient(tmp_path_factory.mktemp("edge")), QdrantClient(":memory:")
    for one in both:
        fill(one)
    yield both
    for one in both:
        one.close()


def field(key: str, **condition: Any) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, **condition)])


def number(n: int) -> models.FieldCondition:
    return models.FieldCondition(key="number", match=models.MatchValue(value=n))


FILTERS = {
    "value": field("group", match=models.MatchValue(value="g3")),
    "number": field("number", match=models.MatchValue(value=17)),
    "any": field("group", match=models.MatchAny(any=["g1", "g2"])),
    "any number": field("number", match=models.MatchAny(any=[1, 2, 3])),
    "except": field("group", match=models.MatchExcept(**{"except": ["g0", "g1"]})),
    "in a list": field("tags", match=models.MatchValue(value="t3")),
    "nested key": field("deep.mixed", match=models.MatchValue(value=3)),
    "range": field("share", range=models.Range(gte=0.1, lt=0.25)),
    "open range": field("number", range=models.Range(gt=290)),
    "dates": field(
        "when",
        range=models.DatetimeRange(gte=datetime(2024, 1, 3, tzinfo=timezone.utc), lt=datetime(2024, 1, 5, 12)),
    ),
    "values count": field("tags", values_count=models.ValuesCount(gte=2)),
    "empty": models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="text"))]),
    "null": models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="nothing"))]),
    "ids": models.Filter(must=[models.HasIdCondition(has_id=[1, 3, str(uuid.UUID(int=4)), 99999])]),
    "vector": models.Filter(must=[models.HasVectorCondition(has_vector="video")]),
    "nested": models.Filter(
        must=[
            models.NestedCondition(
                nested=models.Nested(
                    key="parts",
                    filter=models.Filter(
                        must=[
                            models.FieldCondition(key="kind", match=models.MatchValue(value="a")),
                            models.FieldCondition(key="size", range=models.Range(gte=8)),
                        ]
                    ),
                )
            )
        ]
    ),
    "one, not in a list": models.Filter(must=number(5)),
    "must not": models.Filter(must_not=[models.FieldCondition(key="number", range=models.Range(gte=10))]),
    "should": models.Filter(should=[number(1), number(2)]),
    "min should": models.Filter(
        min_should=models.MinShould(
            conditions=[
                models.FieldCondition(key="number", range=models.Range(lt=5)),
                models.FieldCondition(key="group", match=models.MatchValue(value="g0")),
                models.FieldCondition(key="tags", match=models.MatchValue(value="t1")),
            ],
            min_count=2,
        )
    ),
    "filter in filter": models.Filter(must=[models.Filter(should=[number(1), models.Filter(must_not=number(2))])]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_chooses_what_it_chooses_in_memory(filled: tuple[EdgeClient, QdrantClient], name: str) -> None:
    folder, memory = ({r.id for r in one.scroll("videos", FILTERS[name], limit=999)[0]} for one in filled)
    assert folder == memory
    assert 0 < len(folder) < POINTS
    assert filled[0].count("videos", FILTERS[name]).count == len(folder)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (models.SliceCondition(slice=models.Slice(total=2, index=0)), "SliceCondition"),
        (
            models.FieldCondition(
                key="x", geo_radius=models.GeoRadius(center=models.GeoPoint(lon=0, lat=0), radius=1)
            ),
            "FieldCondition on a place",
        ),
        (models.FieldCondition(key="x", match=models.MatchPrefix(prefix="a")), "MatchPrefix"),
        (models.HasIdCondition(has_id=["seven"]), "'seven' is neither a number nor a UUID"),
    ],
)
def test_a_condition_that_a_folder_has_not_is_refused_by_name(
    filled: tuple[EdgeClient, QdrantClient], condition: Any, message: str
) -> None:
    for wrapped in (condition, models.Filter(should=condition)):
        with pytest.raises(InputError, match=message):
            filled[0].scroll("videos", models.Filter(must=[wrapped]))


def answers(points: list[Any]) -> list[tuple[Any, float]]:
    return [(point.id, pytest.approx(point.score, abs=1e-5)) for point in points]


def test_searches_answer_what_memory_answers(filled: tuple[EdgeClient, QdrantClient]) -> None:
    two_stages = {
        "prefetch": models.Prefetch(query=QUERIES[1].tolist(), using="video", limit=20),
        "using": "frames",
        "limit": 7,
    }
    wanted = field("number", range=models.Range(lt=150))
    asked: list[tuple[Any, dict[str, Any]]] = [
        (QUERIES[0].tolist(), {"using": "video"}),
        (QUERIES[0], {"using": "video", "limit": 3, "offset": 2}),
        (QUERIES[0].tolist(), {"using": "video", "score_threshold": 0.4, "limit": 100}),
        (QUERIES[0].tolist(), {"using": "video", "query_filter": wanted}),
        (QUERIES[:2].tolist(), {"using": "frames"}),
        ([QUERIES[0].tolist()], two_stages),
        (models.NearestQuery(nearest=QUERIES[0].tolist()), {"using": "video", "with_payload": ["group"]}),
    ]
    for query, options in asked:
        folder, memory = (one.query_points("videos", query, **options).points for one in filled)
        assert folder
        assert answers(folder) == answers(memory)
        assert [point.payload for point in folder] == [point.payload for point in memory]
    exact = models.SearchParams(exact=True, hnsw_ef=64)
    requests = [
        models.QueryRequest(query=query.tolist(), using="video", params=exact, limit=4, with_vector=["video"])
        for query in QUERIES
    ]
    batch = filled[0].query_batch_points("videos", requests)
    for query, answer in zip(QUERIES, batch, strict=True):
        cosines = VECTORS @ query / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(query)
        cosines[::50] = -2  # these have no vectors
        assert [point.score for point in answer.points] == pytest.approx(np.sort(cosines)[::-1][:4], abs=1e-5)
        assert np.shape(answer.points[0].vector["video"]) == (WIDTH,)


def slow_groups(
    query: np.ndarray, key: Callable[[int], Any], limit: int, size: int
) -> list[tuple[Any, list[int]]]:
    cosines = VECTORS @ query / np.linalg.norm(VECTORS, axis=1)
    found: dict[Any, list[int]] = {}
    for n in np.argsort(-cosines):
        if n % 50 and key(n) is not None:
            found.setdefault(key(n), []).append(int(n))
    return [(group, members[:size]) for group, members in found.items()][:limit]


@pytest.mark.parametrize(("limit", "size"), [(1, 1), (5, 1), (10, 3), (100, 2), (3, 250)])
def test_groups_are_the_best_ones_with_their_best_points(
    filled: tuple[EdgeClient, QdrantClient], limit: int, size: int
) -> None:
    keys: dict[str, Callable[[int], Any]] = {
        "group": lambda n: f"g{GROUPS[n]}",
        "deep.mixed": lambda n: payload(n)["deep"]["mixed"],
        "text": lambda n: payload(n).get("text"),
    }
    for key, of in keys.items():
        for query in QUERIES[:4]:
            groups = (
                filled[0]
                .query_points_groups("videos", key, query.tolist(), "video", limit=limit, group_size=size)
                .groups
            )
            found = [(group.id, [(hit.payload or {})["number"] for hit in group.hits]) for group in groups]
            assert found == slow_groups(query, of, limit, size)


def test_groups_take_what_a_search_takes(filled: tuple[EdgeClient, QdrantClient]) -> None:
    folder, _ = filled
    cut = field("number", range=models.Range(lt=220))
    first = models.Prefetch(query=QUERIES[1].tolist(), using="video", limit=30)
    groups = folder.query_points_groups(
        "videos",
        "group",
        [QUERIES[0].tolist()],
        "frames",
        prefetch=first,
        query_filter=cut,
        limit=6,
        group_size=2,
        with_payload=["number"],
        with_vectors=["video"],
        search_params=models.SearchParams(exact=True),
    ).groups
    assert len(groups) == 6  # although the thirty first ones are of fewer
    scores = [group.hits[0].score for group in groups]
    assert scores == sorted(scores, reverse=True)
    for group in groups:
        for hit in group.hits:
            n = (hit.payload or {})["number"]
            assert list(hit.payload or {}) == ["number"]
            assert n < 220
            assert f"g{GROUPS[n]}" == group.id
            units = FRAME_VECTORS[n] / np.linalg.norm(FRAME_VECTORS[n], axis=1, keepdims=True)
            assert hit.score == pytest.approx((units @ QUERIES[0]).max() / np.linalg.norm(QUERIES[0]), abs=1e-5)
            assert isinstance(hit.vector, dict)
    near = folder.query_points_groups(
        "videos", "group", QUERIES[0].tolist(), "video", limit=50, group_size=300, score_threshold=0.5
    ).groups
    assert all(hit.score >= 0.5 for group in near for hit in group.hits)
    assert sum(len(group.hits) for group in near) == len(
        folder.query_points("videos", QUERIES[0].tolist(), "video", score_threshold=0.5, limit=POINTS).points
    )


def test_scrolling_and_fetching(filled: tuple[EdgeClient, QdrantClient]) -> None:
    folder, memory = filled
    found, offset = [], None
    while True:
        points, offset = folder.scroll("videos", limit=70, offset=offset, with_vectors=True)
        found += points
        if offset is None:
            break
    everything, _ = memory.scroll("videos", limit=999, with_vectors=True)
    expected = {record.id: record for record in everything}
    assert len(found) == POINTS
    for record in found:
        assert record.payload == expected[record.id].payload
        assert record.vector.keys() == expected[record.id].vector.keys()
        for name, vector in record.vector.items():
            np.testing.assert_allclose(vector, expected[record.id].vector[name], atol=1e-6)
    assert {r.id for r in folder.retrieve("videos", [1, 99999, str(uuid.UUID(int=2))])} == {
        1,
        str(uuid.UUID(int=2)),
    }
    (one,) = folder.retrieve("videos", [1], models.PayloadSelectorExclude(exclude=["parts", "deep"]), ["video"])
    assert "parts" not in one.payload
    assert one.vector.keys() == {"video"}
    assert folder.retrieve("videos", [1], with_payload=False)[0].payload is None


def test_writes_do_what_they_do_in_memory(client: EdgeClient) -> None:
    memory = QdrantClient(":memory:")
    for one in (client, memory):
        fill(one)
        one.delete("videos", models.FilterSelector(filter=FILTERS["range"]))
        one.delete("videos", models.PointIdsList(points=[101, str(uuid.UUID(int=102))]))
        one.set_payload("videos", {"group": "new", "more": 1.5}, FILTERS["any"], wait=True)
        one.set_payload("videos", {"group": "one"}, [103])
        changes = [
            models.SetPayload(payload={"x": 2.5}, points=[103, 105]),
            models.SetPayload(payload={"x": 3, "y": 4}, points=[105]),
            models.SetPayload(payload={"z": 5}, filter=FILTERS["any"]),
        ]
        one.batch_update_points("videos", [models.SetPayloadOperation(set_payload=change) for change in changes])
        one.delete_payload("videos", ["y", "missing"], models.Filter())
        one.delete_payload("videos", ["x"], [103])
        one.upsert("videos", [models.PointStruct(id=105, vector={"video": [1.0] * WIDTH}, payload={"x": "ä"})])
    folder, expected = (
        {r.id: (r.payload, sorted(r.vector)) for r in one.scroll("videos", limit=999, with_vectors=True)[0]}
        for one in (client, memory)
    )
    assert folder == expected


def test_what_a_collection_says_outlives_it_being_closed(client: EdgeClient) -> None:
    fill(client)
    client.create_payload_index("videos", "group", models.KeywordIndexParams(type="keyword", is_tenant=True))
    client.create_payload_index("videos", "number", models.PayloadSchemaType.INTEGER)
    before = client.get_collection("videos")
    client.close()
    again = EdgeClient(client.folder)
    info = again.get_collection("videos")
    again.close()
    assert info == before
    assert info.points_count == POINTS
    assert info.config.metadata == {"a": [1]}
    assert info.config.params.vectors == {"video": COSINE, "frames": MANY}
    assert info.payload_schema["group"].params.is_tenant is True
    assert info.payload_schema["number"].data_type == models.PayloadSchemaType.INTEGER
    with pytest.raises(StoreError, match="is closed"):
        client.count("videos")


def test_an_index_is_built_when_asked_and_held_back_in_between(client: EdgeClient) -> None:
    fill(client)
    off = models.OptimizersConfigDiff(indexing_threshold=0)
    now = models.OptimizersConfigDiff(indexing_threshold=1)
    index = {"video": models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(full_scan_threshold=10))}
    client.update_collection("videos", optimizers_config=off, vectors_config=index)
    client.optimize("videos")
    assert client.get_collection("videos").indexed_vectors_count == 0
    client.update_collection("videos", optimizers_config=now, metadata={"b": 2})
    info = client.get_collection("videos")
    assert info.indexed_vectors_count
    assert info.config.metadata == {"a": [1], "b": 2}
    binary = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    quantized = {"video": models.VectorParamsDiff(quantization_config=binary)}
    assert client.update_collection("videos", vectors_config=quantized)
    assert client.get_collection("videos").config.params.vectors["video"].quantization_config == binary
    assert list((client.folder / "videos").rglob("quantized*"))
    full = {"video": models.VectorParamsDiff(quantization_config=models.Disabled.DISABLED)}
    client.update_collection("videos", vectors_config=full)
    assert client.get_collection("videos").config.params.vectors["video"].quantization_config is None
    assert len(client.scroll("videos", limit=999)[0]) == POINTS
    with pytest.raises(InputError, match="has no vector 'vidoe'"):
        client.update_collection("videos", vectors_config={"vidoe": index["video"]})


def test_threads_lose_nothing(client: EdgeClient) -> None:
    """Writers of points, payload and index, readers and one that keeps changing the collection, all at once."""
    client.create_collection("videos", {"video": COSINE})
    stop, stored, guard = threading.Event(), set[Any](), threading.Lock()

    def write(writer: int) -> None:
        for n in range(0, 100, 5):
            ids = range(writer * 1000 + n, writer * 1000 + n + 5)
            points = [
                models.PointStruct(id=i, vector={"video": QUERIES[i % 10].tolist()}, payload={}) for i in ids
            ]
            client.upsert("videos", points)
            client.set_payload("videos", {"writer": writer}, list(ids))
            client.delete("videos", [ids[0]])
            with guard:
                stored.update(ids[1:])

    def read() -> int:
        seen = 0
        while not stop.is_set():
            with guard:
                there = stored.copy()
            found = client.query_points("videos", QUERIES[0].tolist(), "video", limit=1000, with_payload=True)
            assert len({point.id for point in found.points}) == len(found.points)
            assert there <= {point.id for point in found.points}
            assert there <= {record.id for record in client.scroll("videos", limit=1000)[0]}
            seen = len(there)
        return seen

    def change() -> None:
        while not stop.is_set():
            for threshold in (1, 0):
                optimizers = models.OptimizersConfigDiff(indexing_threshold=threshold)
                client.update_collection("videos", optimizers_config=optimizers)

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(read), pool.submit(read), pool.submit(change)]
        writers = [pool.submit(write, n) for n in range(4)]
        try:
            for writer in writers:
                writer.result()
        finally:
            stop.set()
        assert all(seen for seen in [other.result() for other in others[:2]])
        others[2].result()
    expected = {w * 1000 + n: {"writer": w} for w in range(4) for n in range(100) if n % 5}
    for reopened in (False, True):
        if reopened:
            client.close()
            client = EdgeClient(client.folder)
        assert {r.id: r.payload for r in client.scroll("videos", limit=9999)[0]} == expected
    client.close()


def test_closing_waits_for_what_is_under_way(client: EdgeClient) -> None:
    fill(client)
    started = threading.Event()

    def search() -> int:
        for done in range(1_000_000):
            started.set()
            try:
                assert client.query_points("videos", QUERIES[0].tolist(), "video").points
            except StoreError:  # and nothing else: nothing that the engine says of a shard that is gone
                return done
        return 1_000_000

    with ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(search) for _ in range(2)]
        started.wait()
        client.close()
        assert all(search.result() < 1_000_000 for search in searches)


KILLS = int(os.environ.get("KILLS", "3"))
WRITER = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from qdrant_client import models
from dits_adapter.stores.qdrant.edge._client import EdgeClient

start = int(sys.argv[2])
client = EdgeClient(Path(sys.argv[1]))
print("ready", flush=True)
for n in count(start):
    vector = np.random.default_rng(n).normal(size=256).tolist()
    client.upsert("videos", [models.PointStruct(id=n, vector={"video": vector}, payload={"n": n})])
    if n % 3 == 0:
        of_ten = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=n - 10, lt=n))])
        client.set_payload("videos", {"late": n}, of_ten)
    if n % 8 == 7:
        client.optimize("videos")
    print(n, flush=True)
"""


def written(upto: int) -> dict[int, dict[str, int]]:
    points: dict[int, dict[str, int]] = {}
    for n in range(upto + 1):
        points[n] = {"n": n}
        if n % 3 == 0:
            for before in range(max(0, n - 10), n):
                points[before]["late"] = n
    return points


def test_what_was_written_outlives_kills_at_any_moment(client: EdgeClient) -> None:
    """Writes, payload changes and the building of the index, cut short by kill -9 again and again."""
    client.create_collection(
        "videos",
        {"video": COSINE.model_copy(update={"size": 256})},
        hnsw_config=models.HnswConfigDiff(full_scan_threshold=10),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1, default_segment_number=1),
    )
    client.close()
    rng, last = np.random.default_rng(0), -1
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(client.folder), str(last + 1)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        last = int(child.stdout.readline())  # so that each of them writes something
        time.sleep(rng.uniform(0.05, 1.2))
        child.kill()
        last = max([last, *map(int, child.stdout.read().split())])
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        with_it = EdgeClient(client.folder)
        found = {record.id: record.payload for record in with_it.scroll("videos", limit=99_999)[0]}
        with_it.close()
        before, after = written(last), written(last + 1)  # the latter was on its way
        assert before.keys() <= found.keys() <= after.keys()
        assert all(fields in (before.get(n), after[n]) for n, fields in found.items())
    assert last > KILLS


def test_a_collection_appears_and_disappears_as_a_whole(client: EdgeClient) -> None:
    fill(client)
    client.close()
    shutil.copytree(client.folder / "videos", client.folder / NEW)
    os.remove(client.folder / NEW / COLLECTION)
    shutil.copytree(client.folder / "videos", client.folder / GONE)
    again = EdgeClient(client.folder)
    assert [c.name for c in again.get_collections().collections] == ["videos"]
    assert not (again.folder / NEW).exists()
    assert not (again.folder / GONE).exists()
    assert again.delete_collection("videos")
    assert not again.delete_collection("videos")
    assert [path.name for path in again.folder.iterdir()] == ["qdrant-edge.lock"]
    fill(again)
    with pytest.raises(StoreError, match="has a collection 'videos' already"):
        fill(again)
    again.close()


def test_no_space_no_write_and_no_index(client: EdgeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(client)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(64 << 20) + 1000))
        with pytest.raises(StoreError, match=r"disk is full: 64 MB are free, and \d+ MB are needed"):
            client.optimize("videos")  # needs as much again as there is
        client.delete("videos", [1])
        patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=63 << 20))
        for write in (
            lambda: client.upsert("videos", [models.PointStruct(id=1, vector={}, payload={})]),
            lambda: client.delete("videos", [3]),
            lambda: client.create_collection("other", COSINE),
        ):
            with pytest.raises(StoreError, match="disk is full: 63 MB are free, and 64 MB are needed"):
                write()
        assert client.query_points("videos", QUERIES[0].tolist(), "video").points
    assert client.count("videos").count == POINTS - 1
    assert not client.collection_exists("other")


def test_no_space_is_needed_where_there_is_nothing_to_index(
    client: EdgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tight() -> SimpleNamespace:
        return SimpleNamespace(free=(64 << 20) + 1000)

    point = models.PointStruct(id=9999, vector={"video": VECTORS[0].tolist()}, payload={})
    changes = {
        "upsert": lambda client: client.upsert("videos", [point]),
        "set_payload": lambda client: client.set_payload("videos", {"x": 1}, [9999]),
        "delete": lambda client: client.delete("videos", [9999]),
        "index": lambda client: client.create_payload_index("videos", "y", models.PayloadSchemaType.KEYWORD),
    }
    fill(client)
    for name, change in changes.items():
        client.optimize("videos")
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "disk_usage", lambda path: tight())
            assert client.optimize("videos") is False
            client.close()
            client = EdgeClient(client.folder)
            assert client.optimize("videos") is False, name
            change(client)
            with pytest.raises(StoreError, match="to bring the index up to date; all that is stored is found"):
                client.optimize("videos")
    client.close()


def test_what_is_written_while_the_index_is_built_is_indexed_the_next_time(
    client: EdgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_collection(
        "videos",
        {"video": COSINE},
        hnsw_config=models.HnswConfigDiff(full_scan_threshold=10),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )

    def write(first: int) -> None:
        rows = range(first, first + POINTS)
        points = [
            models.PointStruct(id=n, vector={"video": VECTORS[n % POINTS].tolist()}, payload={}) for n in rows
        ]
        client.upsert("videos", points)

    write(0)
    with client._folder.use("videos") as collection:
        shard = collection.shard
    late = SimpleNamespace(optimize=lambda: shard.optimize() and (write(POINTS) or True), flush=shard.flush)
    late.update, late.close, late.info = shard.update, shard.close, shard.info
    monkeypatch.setattr(collection, "shard", late)
    assert client.optimize("videos")
    assert client.get_collection("videos").indexed_vectors_count == POINTS
    monkeypatch.setattr(collection, "shard", shard)
    assert client.optimize("videos")
    assert client.get_collection("videos").indexed_vectors_count == 2 * POINTS
    assert not client.optimize("videos")


def test_an_index_that_was_never_completed_is_swept_away(client: EdgeClient) -> None:
    fill(client)
    client.close()
    leftover = client.folder / "videos" / "temp_segments" / "segment_builder_x"
    leftover.mkdir(parents=True)
    again = EdgeClient(client.folder)
    assert again.count("videos").count == POINTS
    assert not leftover.exists()
    again.close()


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ({"video": [float("nan"), *[0.0] * 7]}, "'video' of 1 .* NaN"),
        ({"video": [float("inf"), *[0.0] * 7]}, "'video' of 1 .* infinite"),
        ({"frames": [[1.0] * 8, [1.0] * 7]}, "'frames' of 1 .* rows differ"),
        ({"video": ["a"] * 8}, "not made of numbers"),
    ],
)
def test_vectors_that_are_none_are_refused(client: EdgeClient, vector: Any, message: str) -> None:
    fill(client)
    point = models.PointStruct.model_construct(id=1, vector=vector, payload={})
    with pytest.raises(InputError, match=message):
        client.upsert("videos", [point])
    assert client.retrieve("videos", [1])[0].payload == payload(1)


def test_what_a_folder_cannot_do_is_refused_by_name(client: EdgeClient) -> None:
    fill(client)
    indexed = {"s": models.SparseVectorParams(index=models.SparseIndexParams(on_disk=True))}
    batch = [models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[1]))]
    lookup = models.LookupLocation(collection="other")
    vector = QUERIES[0].tolist()
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: client.create_collection("x", COSINE, shard_number=2), "shard_number"),
        (lambda: client.create_collection("x", COSINE, sparse_vectors_config=indexed), "SparseIndexParams"),
        (lambda: client.batch_update_points("videos", batch), "ClearPayloadOperation in a batch"),
        (lambda: client.create_collection("x", COSINE, quantization_config=product()), "ProductQuantization"),
        (lambda: client.query_points("videos", 7, "video"), "int in place of a query vector"),
        (lambda: client.query_points("videos", vector, "video", lookup_from=lookup), "LookupLocation"),
        (lambda: client.query_points("videos", vector, "video", shard_key_selector="a"), "shard_key_selector"),
        (lambda: client.query_points_groups("videos", "group", vector, "video", with_lookup="x"), "with_lookup"),
        (lambda: client.scroll("videos", order_by="number"), "order_by"),
        (lambda: client.upsert("videos", [], update_filter=models.Filter()), "update_filter"),
        (lambda: client.create_payload_index("videos", "text", models.TextIndexParams(type="text")), "TextIndex"),
        (lambda: client.query_points("videos", [float("nan")] * 8, "video"), "of the query .* NaN"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(NotImplementedError):
        client.facet("videos", "group")
    with pytest.raises(StoreError, match=r"'videos' cannot be .*expected dim: 8, got 9"):
        client.query_points("videos", [1.0] * 9, "video")
    with pytest.raises(StoreError, match="has no collection 'vidoes'"):
        client.count("vidoes")
    assert [c.name for c in client.get_collections().collections] == ["videos"]


def product() -> models.ProductQuantization:
    return models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X4)
    )


@pytest.mark.parametrize("name", ["", ".", "..", ".new", "a/b", "a\\b", "a:b", "a\nb", "ä" * 128])
def test_names_that_no_folder_can_have(client: EdgeClient, name: str) -> None:
    assert not client.collection_exists(name)
    with pytest.raises(InputError, match="a collection cannot be called"):
        client.create_collection(name, COSINE)


def test_the_engine_is_loaded_for_a_folder_only() -> None:
    code = (
        "import sys; from dits_adapter import QdrantStore; QdrantStore(':memory:').client; "
        "QdrantStore('http://localhost:1').client; print('qdrant_edge' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_ingestion_leaves_a_folder_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(EdgeClient, "optimize", lambda self, name: built.append(name))
    write_video(tmp_path / "library" / "a.mp4")
    with QdrantStore(tmp_path / "store", "mine", space=fake_space()) as store:
        ingest(store, tmp_path / "library", FakeEncoder(), progress=False)  # type: ignore[arg-type]
    assert built == ["mine"]
