"""The collection: its metadata, search against a slow reference, collections of others, each error's sentence."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from benchmarks.server import QdrantProcess
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant._schema import METADATA_KEY
from dits_adapter.stores.qdrant.aio import AsyncQdrantStore
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import Hit, ReadRequest
from tests.conftest import ANSWER
from tests.stores.conftest import QDRANT_IMAGE, Storage, docker_answers
from tests.stores.fakes import FakeEncoder, fake_space, write_video
from tests.waiting import PATIENCE


def fill(store: QdrantStore, folder: Path, videos: int = 6, segments: int = 4) -> None:
    for seed in range(videos):
        write_video(folder / f"{seed}.mp4", seed=seed, segments=segments)
    write_video(folder / "broken.mp4", "broken")
    ingest(store, folder, FakeEncoder(), progress=False)  # type: ignore[arg-type]


def all_segments(folder: Path, videos: int = 6) -> list[Any]:
    paths = [str(folder / f"{seed}.mp4") for seed in range(videos)]
    return list(FakeEncoder().iter_segments(paths, on_error=pytest.fail))


def own_collection(client: QdrantClient, name: str, vectors: Any) -> None:
    """A collection as somebody else's program makes it: three points of two clips, vectors along the axes."""
    client.create_collection(name, vectors_config=vectors)
    axes = np.eye(8)[:3].tolist()
    named = [{next(iter(vectors)): axis} if isinstance(vectors, dict) else axis for axis in axes]
    clips = ["x", "x", "y"]
    points = [models.PointStruct(id=n, vector=named[n], payload={"clip": clips[n], "path": "p"}) for n in range(3)]
    client.upsert(name, points)


METADATA = CollectionMetadata(space=fake_space())
COSINE = models.VectorParams(size=8, distance=models.Distance.COSINE)
QUERY = np.array([1.0, 0.1, 0.5, 0, 0, 0, 0, 0], np.float32)


def test_search_returns_what_a_slow_reference_returns(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path)
    segments = all_segments(tmp_path)
    store = storage.open(space=fake_space())
    for seed in range(5):
        query = np.random.default_rng(100 + seed).normal(size=8) * 3
        cosines = {(s.path, s.start): float(s.vector @ query) / np.linalg.norm(query) for s in segments}
        best = {path: max(c for (p, _), c in cosines.items() if p == path) for path, _ in cosines}
        expected = sorted(best, key=lambda path: -best[path])[:3]
        hits = store.search(query, limit=3, per_video=2)
        assert list(dict.fromkeys(hit.path for hit in hits)) == expected
        assert len(hits) == 6
        for hit in hits:
            assert hit.score == pytest.approx(cosines[hit.path, hit.start], abs=1e-5)
            segment = next(s for s in segments if (s.path, s.start) == (hit.path, hit.start))
            assert hit.end == segment.end
            assert hit.timestamp == segment.timestamps[np.argmax(segment.frame_vectors @ query)]
        assert hits[0].score > hits[1].score
        assert [hit.payload for hit in store.search(query, limit=3)] == [hit.payload for hit in hits[::2]]


def test_files_that_failed_are_no_hits_and_do_not_count(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path)
    store = storage.open()
    hits = store.search(QUERY, limit=100, per_video=100)
    assert len(hits) == store.count() == 24
    assert not any("failure" in hit.payload for hit in hits)


def test_videos_are_counted_when_they_are_whole(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path)
    store = storage.open()
    assert (store.count_videos(), store.count()) == (6, 24)
    last = store.search(QUERY, limit=1, per_video=4)[0].video_id
    of_video = models.FieldCondition(key="video_id", match=models.MatchValue(value=last))
    ended = models.FieldCondition(key="segments", range=models.Range(gte=1))
    store.client.delete(
        store.collection, models.FilterSelector(filter=models.Filter(must=[of_video, ended])), wait=True
    )  # as if ingestion had been killed before its last segment
    assert (store.count_videos(), store.count()) == (5, 23)


@pytest.mark.parametrize("probability", [0.02, 0.3, 0.6, 0.999])
def test_a_least_score_is_a_least_probability(storage: Storage, tmp_path: Path, probability: float) -> None:
    fill(storage.open(), tmp_path)
    store = storage.open(space=fake_space())
    calibration = Calibration(slope=8, offset=-2, videos=40, queries=80, log_loss=0.3, ece=0.02, answer=ANSWER)
    videos = store.count_videos()
    everything = store.search(QUERY, limit=6, per_video=4)
    likely = [hit.id for hit in everything if calibration.probability(hit.score, videos=videos) >= probability]
    least = calibration.score_of(probability, videos=videos)
    assert [hit.id for hit in store.search(QUERY, limit=6, per_video=4, min_score=least)] == likely
    assert len(likely) < len(everything)
    assert bool(likely) == (probability < 0.9)


def test_filter_limits_the_search(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path)
    late = models.Filter(must=[models.FieldCondition(key="start", range=models.Range(gte=4.0))])
    hits = storage.open().search(QUERY, limit=100, per_video=100, filter=late)
    assert {hit.start for hit in hits} == {4.0, 6.0}
    assert len(hits) == 12


def test_space_is_checked_on_every_open(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path, videos=1)
    assert storage.open().open() == fake_space()
    assert storage.open(space=fake_space()).search(QUERY)
    with pytest.raises(SpaceMismatchError, match=rf"the query.*fake-1.*{storage.collection}.*fake-0"):
        storage.open(space=fake_space(1)).search(QUERY)
    with pytest.raises(SpaceMismatchError, match="width 16 against 8"):
        storage.open(space=fake_space(0, 16)).search(QUERY)
    with pytest.raises(SpaceMismatchError, match="fake-1"):
        storage.open(space=fake_space(1)).create(METADATA)


def test_videos_of_other_frames_are_found_and_not_mixed(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path, videos=2)
    more = fake_space().with_frames(12)
    with pytest.warns(
        UserWarning, match=rf"the query is for videos .*{storage.collection}.*: frames 12 against 4"
    ):
        hits = storage.open(space=more).search(QUERY)
    assert [hit.path for hit in hits] == [hit.path for hit in storage.open(space=fake_space()).search(QUERY)]
    with pytest.raises(SpaceMismatchError, match=r"frames 12 against 4.*ask for the same \(--frames\)"):
        storage.open().create(CollectionMetadata(space=more))


def test_an_alias_is_as_good_as_the_name(storage: Storage, tmp_path: Path) -> None:
    fill(storage.open(), tmp_path, videos=1)
    alias = f"alias-{uuid.uuid4().hex}"
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=storage.collection, alias_name=alias)
    )
    client = storage.open().client
    if not isinstance(client, QdrantClient):
        with pytest.raises(StoreError, match="a folder has no aliases"):
            client.update_collection_aliases([create])
        return
    client.update_collection_aliases([create])
    assert storage.open(alias, space=fake_space()).search(QUERY)


def test_a_collection_of_somebody_else_is_searched_only_on_trust(storage: Storage) -> None:
    storage.open(space=fake_space()).create(METADATA)
    own_collection(storage.open().client, "mine", {"clip": COSINE})
    try:
        with pytest.raises(StoreError, match=r"'mine' does not say which.*trust_foreign=True"):
            storage.open("mine", space=fake_space(), layout=PointLayout(vector="clip")).search(QUERY)
        with pytest.raises(StoreError, match="does not say"):
            storage.open("mine", layout=PointLayout(vector="clip")).open()
        with pytest.raises(InputError, match="needs space"):
            storage.open("mine", trust_foreign=True)
        store = storage.open("mine", space=fake_space(), layout=PointLayout(vector="clip"), trust_foreign=True)
        with pytest.warns(UserWarning, match=r"taken to be fake-0.*Only its width \(8\) could be checked"):
            hits = store.search(QUERY)
        assert [(hit.video_id, hit.path, hit.start, hit.timestamp) for hit in hits] == [
            ("0", "p", None, None),
            ("2", "p", None, None),
            ("1", "p", None, None),
        ]
        by_clip = PointLayout(vector="clip", video="clip")
        grouped = storage.open("mine", space=fake_space(), layout=by_clip, trust_foreign=True)
        with pytest.warns(UserWarning, match="taken to be"):
            assert [hit.video_id for hit in grouped.search(QUERY)] == ["x", "y"]
        with pytest.raises(StoreError, match="has no vector 'video'; it has 'clip'"):
            storage.open("mine", space=fake_space(), trust_foreign=True).open()
        with pytest.raises(SpaceMismatchError, match="'mine' has width 8; the queries have 9"):
            storage.open("mine", space=fake_space(0, 9), layout=by_clip, trust_foreign=True).open()
    finally:
        storage.open().client.delete_collection("mine")


def test_the_unnamed_vector_is_searched_as_the_empty_name() -> None:
    client = QdrantClient(":memory:")
    own_collection(client, "mine", COSINE)
    store = QdrantStore(client, "mine", space=fake_space(), layout=PointLayout(vector=""), trust_foreign=True)
    with pytest.warns(UserWarning, match="taken to be"):
        assert store.search(QUERY, limit=1)[0].video_id == "0"


def test_a_client_of_the_users_own_stays_open(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    with QdrantStore(client) as store:
        fill(store, tmp_path, videos=1)
        assert store.client is client
    assert client.count("videos").count == 5
    with pytest.raises(InputError, match="AsyncQdrantClient"):
        QdrantStore(AsyncQdrantClient(":memory:"))  # type: ignore[arg-type]


def test_a_grpc_client_does_as_well(qdrant_process: Callable[..., QdrantProcess], tmp_path: Path) -> None:
    server = qdrant_process()
    client = QdrantClient(
        url=server.url,
        grpc_port=server.grpc_port,
        prefer_grpc=True,
        timeout=int(PATIENCE),
        check_compatibility=False,
    )
    store = QdrantStore(client, space=fake_space())
    fill(store, tmp_path)
    memory = QdrantStore(":memory:")
    fill(memory, tmp_path)
    for found, expected in zip(store.search(QUERY, per_video=2), memory.search(QUERY, per_video=2), strict=True):
        assert (found.path, found.start, found.timestamp) == (expected.path, expected.start, expected.timestamp)
    server.kill()
    with pytest.raises(StoreError, match="answers UNAVAILABLE"):
        store.search(QUERY)


@pytest.mark.docker
@pytest.mark.skipif(not docker_answers(), reason="no Docker engine answers")
def test_the_official_image(tmp_path: Path) -> None:
    from testcontainers.community.qdrant import QdrantContainer

    with (
        QdrantContainer(QDRANT_IMAGE) as container,
        QdrantStore(f"http://{container.rest_host_address}", space=fake_space()) as store,
    ):
        fill(store, tmp_path)
        assert store.count() == 24
        assert store.search(QUERY)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones(9), "the query has 9 dimensions; the collection's vectors have 8"),
        (np.ones((1, 8)), r"shape \(1, 8\)"),
        (np.zeros(8), "zero"),
        ([1.0, float("nan"), *[0.0] * 6], "NaN"),
    ],
)
def test_a_query_that_cannot_be_right_is_refused(tmp_path: Path, query: Any, message: str) -> None:
    store = QdrantStore(":memory:")
    store.create(METADATA)
    with pytest.raises(InputError, match=message):
        store.search(query)
    with pytest.raises(InputError, match="limit is 0"):
        store.search(QUERY, limit=0)
    assert store.search(QUERY) == []


def test_an_unknown_collection_is_answered_with_those_there_are(storage: Storage) -> None:
    storage.open().create(METADATA)
    with pytest.raises(StoreError, match=rf"has no collection 'vidoes'; it has .*{storage.collection}"):
        storage.open("vidoes").search(QUERY)


def test_metadata_of_a_newer_version_is_refused() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("videos", vectors_config={"video": COSINE}, metadata={METADATA_KEY: {"format": 2}})
    with pytest.raises(StoreError, match="newer dits_adapter"):
        QdrantStore(client).search(QUERY)


def test_searching_a_folder_without_a_store_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no Qdrant store is here"):
        QdrantStore(tmp_path / "store").search(QUERY)
    assert not (tmp_path / "store").exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    with pytest.raises(StoreError, match="has other files in it"):
        QdrantStore(tmp_path).create(METADATA)
    with pytest.raises(StoreError, match="no store can be made here"):
        QdrantStore(tmp_path / "a.mp4").create(METADATA)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_an_embedded_store_lets_one_in(tmp_path: Path) -> None:
    with QdrantStore(tmp_path / "store") as first:
        first.create(METADATA)
        with pytest.raises(StoreError, match=r"open in another process.*run a Qdrant server"):
            QdrantStore(tmp_path / "store").search(QUERY)
    with QdrantStore(tmp_path / "store") as second:
        assert second.search(QUERY) == []


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with QdrantStore(tmp_path / "store") as store:
        store.create(METADATA)

    def denied(self: Any) -> None:  # root may write everywhere
        raise OSError(30, "Read-only file system", "qdrant-edge.lock")

    monkeypatch.setattr("portalocker.Lock.acquire", denied)
    with pytest.raises(StoreError, match=r"cannot be opened for writing.*Read-only file system.*permissions"):
        QdrantStore(tmp_path / "store").search(QUERY)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("collection.json", r"collection\.json cannot be understood.*backup, or delete .*videos and ingest again"),
        ("edge_config.json", r"'videos' cannot be opened.*files are damaged.*delete .*videos and ingest again"),
        ("segments", r"'segments', which holds the points, is missing.*ingest again"),
    ],
)
def test_a_damaged_folder_is_said(tmp_path: Path, file: str, message: str) -> None:
    with QdrantStore(tmp_path / "store") as store:
        store.create(METADATA)
    damaged = tmp_path / "store" / "videos" / file
    damaged.rename(damaged.with_name("moved")) if damaged.is_dir() else damaged.write_text('{"vec')
    with pytest.raises(StoreError, match=message), QdrantStore(tmp_path / "store") as store:
        store.search(QUERY)


def test_a_folder_of_the_local_mode_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    client = QdrantClient(path=str(tmp_path))
    own_collection(client, "mine", {"clip": COSINE})
    client.close()
    files = sorted(tmp_path.rglob("*"))
    for use in (
        lambda store: store.search(QUERY),
        lambda store: store.create(METADATA),
    ):
        with pytest.raises(StoreError, match=r"local mode.*into another folder.*QdrantClient\(path="):
            use(QdrantStore(tmp_path))
    assert sorted(tmp_path.rglob("*")) == files


def test_a_dead_server_is_named() -> None:
    with socket.socket() as taken:  # by nobody else meanwhile, and it does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreError, match=rf"{url} gives no usable answer.*Connection refused"):
            QdrantStore(url).search(QUERY)
    with pytest.raises(InputError, match="http://localhost:6333"):
        QdrantStore("localhost:6333")


@pytest.fixture
def web_server() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server whose answer to everything the test decides."""
    reply: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = reply.get(self.path.split("?")[0], reply.get("*", (404, "nothing here")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_PUT = do_DELETE = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", reply
    server.shutdown()
    thread.join()
    server.server_close()


def test_something_else_than_qdrant_is_said(web_server: tuple[str, dict[str, Any]]) -> None:
    url, reply = web_server
    reply["*"] = (200, "<html>welcome</html>")
    with pytest.raises(StoreError, match="Is a Qdrant server running there"):
        QdrantStore(url).search(QUERY)
    reply["*"] = (404, "nothing here")
    with pytest.raises(StoreError, match="answers 404: nothing here"):
        QdrantStore(url).search(QUERY)


def test_a_server_too_old_to_keep_metadata_is_refused_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qdrant before 1.16 takes a collection's metadata and drops it without a word."""
    client = QdrantClient(":memory:")
    create = client.create_collection
    monkeypatch.setattr(client, "create_collection", lambda metadata, **rest: create(**rest))
    with pytest.raises(StoreError, match=r"keeps no collection metadata.*Use Qdrant 1\.16"):
        QdrantStore(client).create(METADATA)
    assert not client.collection_exists("videos")


def test_a_key_is_asked_for_and_taken_from_the_environment(
    qdrant_process: Callable[..., QdrantProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    server = qdrant_process(QDRANT__SERVICE__API_KEY="open-sesame")
    with pytest.raises(StoreError, match=r"refuses access: set QDRANT_API_KEY"):
        QdrantStore(server.url).create(METADATA)
    monkeypatch.setenv("QDRANT_API_KEY", "wrong-key")
    with pytest.warns(UserWarning, match="insecure"), pytest.raises(StoreError) as refused:
        QdrantStore(server.url).create(METADATA)
    assert "wrong-key" not in str(refused.value)
    monkeypatch.setenv("QDRANT_API_KEY", "open-sesame")
    with pytest.warns(UserWarning, match="insecure"):
        QdrantStore(server.url).create(METADATA)


def test_a_hit_prints_in_one_line() -> None:
    hit = Hit(7, "id", "/v/a.mp4", 2.0, 4.0, 0.31234, 2.5, {})
    assert str(hit) == "0.312  /v/a.mp4  2.0-4.0 s (best at 2.5 s)"
    assert str(Hit(7, "id", None, None, None, 0.5, None, {})) == "0.500  id"
    assert str(Hit(7, "id", "/v/a.mp4", 0.0, 0.0, 0.5, None, {})) == "0.500  /v/a.mp4"


@pytest.mark.parametrize("made", [{"url": "http://127.0.0.1:1"}, {"host": "127.0.0.1", "port": 1}])
def test_a_server_behind_somebodys_own_client_is_named(made: dict[str, Any]) -> None:
    store = QdrantStore(QdrantClient(**made, check_compatibility=False))
    assert store.capabilities.remote
    with pytest.raises(StoreError, match=r"^http://127\.0\.0\.1:1 gives no usable answer"):
        store.count()


def test_metadata_without_tenants_are_refused_by_a_store_of_a_tenant() -> None:
    with pytest.raises(InputError, match="tenants=True"):
        QdrantStore(":memory:", tenant="a").create(CollectionMetadata(space=fake_space()))


def test_digits_beyond_any_id_match_nothing(tmp_path: Path) -> None:
    with QdrantStore(":memory:") as store:
        fill(store, tmp_path, videos=1)
        for field in ("video_id", ""):
            assert not list(store.read(ReadRequest(field=field, values=["9" * 5000])))


@pytest.mark.parametrize("name", ["a/b", "new\nline", "x" * 256])
def test_a_name_that_no_collection_has_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    for location in (":memory:", tmp_path / "store", "http://localhost:1"):
        with pytest.raises(InputError, match=r"a collection cannot be called .* a name has 1 to 255 bytes"):
            QdrantStore(location, name).create(CollectionMetadata(space=fake_space()))
    assert not (tmp_path / "store").exists()
    for door in (QdrantStore, AsyncQdrantStore):
        with pytest.raises(InputError, match="collection is empty"):
            door("http://localhost:1", "")
