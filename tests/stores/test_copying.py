"""A collection that is copied: all of it, from any kind of place to any other, however often it is cut short."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.copying import CopyReport, copy_collection
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant import _copy as copying
from dits_adapter.stores.qdrant.aliases import switch
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.store import POOLED, QdrantStore
from tests.stores.conftest import contents
from tests.stores.fakes import FakeEncoder, fake_space, write_video
from tests.stores.server import qdrant_client

KINDS = ("folder", "server")
Place = tuple[str, str]


@pytest.fixture(params=["folder to server", "server to folder", "folder to folder"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """Two places in turn, each with the name of a collection there."""
    kinds, made = request.param.split(" to "), []
    for n, kind in enumerate(kinds):
        location = str(tmp_path / f"store{n}") if kind == "folder" else request.getfixturevalue("qdrant_server")
        made.append((location, f"copying-{uuid.uuid4().hex}"))
    yield made[0], made[1]
    for location, name in made:
        if location.startswith("http"):
            qdrant_client(location).delete_collection(name)


def fill(place: Place, folder: Path, **options: Any) -> None:
    for seed in range(8):
        write_video(folder / f"{seed}.mp4", "broken" if seed == 5 else "good", seed=seed, segments=seed + 1)
    with QdrantStore(*place) as store:
        ingest(store, folder, FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


def everything(place: Place) -> tuple[Any, ...]:
    with QdrantStore(*place) as store:
        info = store.client.get_collection(store.collection)
        options = CollectionOptions.of(info.config.params, info.config.params.vectors[POOLED])
        metadata = store.metadata()
        assert metadata is not None
        assert metadata.space == fake_space()
        cut = metadata.segment_seconds, metadata.overlap
        return contents(store), cut, options.model_dump(exclude={"shards"}), info.payload_schema


def assert_same(places: tuple[Place, Place]) -> None:
    (points, *rest), (copied, *others) = map(everything, places)
    assert others == rest
    assert copied.keys() == points.keys()
    for point, (payload, vectors) in points.items():
        assert copied[point][0] == payload
        assert copied[point][1].keys() == vectors.keys()
        for name in vectors:
            np.testing.assert_allclose(copied[point][1][name], vectors[name], atol=1e-6)


def test_all_of_it_arrives_and_is_searched_alike(places: tuple[Place, Place], tmp_path: Path) -> None:
    source, destination = places
    options = CollectionOptions(hnsw_m=24, on_disk=True, quantization="scalar")
    fill(source, tmp_path / "videos", store_options=options, segment_seconds=2.0)
    with QdrantStore(*source) as store:
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        store.client.create_payload_index(store.collection, "decoder", tenant)
    with QdrantStore(*source) as one, QdrantStore(*destination) as other:
        report = copy_collection(one, other, progress=False)
        assert report == CopyReport(destination[0], destination[1], written=30, present=0, failures=1)
        assert len(contents(other)) == 31
        query = np.random.default_rng(0).normal(size=8)
        assert [hit.payload for hit in other.search(query)] == [hit.payload for hit in one.search(query)]
        report = copy_collection(one, other, progress=False)
        assert (report.written, report.present, report.failures) == (0, 30, 1)
    assert_same(places)


def test_it_can_be_cut_short_anywhere(
    places: tuple[Place, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, destination = places
    fill(source, tmp_path / "videos")
    monkeypatch.setattr(copying, "BATCH", 5)
    write = QdrantStore.write_points
    steps: Iterator[int]

    def stopping(self: QdrantStore, points: Any) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        write(self, points)

    monkeypatch.setattr(QdrantStore, "write_points", stopping)
    for writes in (0, 1, 3):
        steps = iter(range(writes))
        with (
            pytest.raises(KeyboardInterrupt),
            QdrantStore(*source) as one,
            QdrantStore(*destination) as other,
        ):
            copy_collection(one, other, progress=False)
    steps = iter(range(100))
    with QdrantStore(*source) as one, QdrantStore(*destination) as other:
        report = copy_collection(one, other, progress=False)
        assert report.written in (10, 11)  # of 31 points, one of which is a failure, 20 are there
        assert report.written + report.present == 30
    assert_same(places)


@pytest.mark.parametrize(
    "places",
    ["folder to server", *(pytest.param(f"{source} to folder", marks=pytest.mark.slow) for source in KINDS)],
    indirect=True,
)
def test_killed_again_and_again_it_ends_as_one_clean_copy(places: tuple[Place, Place], tmp_path: Path) -> None:
    source, destination = places
    fill(source, tmp_path / "videos")
    code = (
        "import sys, time; from dits_adapter.cli import main\n"
        "from dits_adapter.stores.qdrant import _copy as copying, store as qdrant\n"
        "copying.BATCH = 2; write = qdrant.QdrantStore.write_points\n"
        "def slowly(*given): write(*given); time.sleep(0.05); print('one', flush=True)\n"
        "qdrant.QdrantStore.write_points = slowly; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["copy", source[0], destination[0], "--collection", source[1], "--to", destination[1]]
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.1)
        child.kill()
        child.stdout.close()
        child.wait()
    assert main(arguments) == 0
    assert_same(places)


def test_what_changed_in_the_source_is_brought_over(places: tuple[Place, Place], tmp_path: Path) -> None:
    source, destination = places
    fill(source, tmp_path / "videos")
    with QdrantStore(*source) as one, QdrantStore(*destination) as other:
        copy_collection(one, other, progress=False)
    (tmp_path / "videos" / "1.mp4").rename(tmp_path / "videos" / "moved.mp4")
    write_video(tmp_path / "videos" / "new.mp4", seed=99)
    with QdrantStore(*source) as one, QdrantStore(*destination) as other:
        ingest(one, tmp_path / "videos", FakeEncoder(), progress=False)  # type: ignore[arg-type]
        assert copy_collection(one, other, progress=False).written == 2 + 2
    assert_same(places)


@pytest.mark.parametrize("kind", [MemoryStore, QdrantStore])
def test_a_file_that_failed_once_and_is_read_by_now_stands_in_no_copys_way(
    kind: type[VideoStore], tmp_path: Path
) -> None:
    one, other = [kind() if kind is MemoryStore else QdrantStore(QdrantClient(":memory:")) for _ in range(2)]
    write_video(tmp_path / "a.mp4", segments=3)
    write_video(tmp_path / "b.mp4", "broken", seed=1)
    counts = []
    for _ in range(2):
        ingest(one, tmp_path, FakeEncoder(), progress=False)  # type: ignore[arg-type]
        report = copy_collection(one, other, progress=False)
        counts.append((report.written, report.present, report.failures))
        assert other.failures() == one.failures()
        write_video(tmp_path / "b.mp4", seed=1, segments=2)
    assert counts == [(3, 0, 1), (2, 3, 0)]


def test_a_destination_with_something_else_is_refused_and_left(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    source, destination = places
    fill(source, tmp_path / "videos")
    write_video(tmp_path / "other" / "a.mp4", seed=77)
    with QdrantStore(*destination) as other:
        ingest(other, tmp_path / "other", FakeEncoder(), progress=False)  # type: ignore[arg-type]
        before = contents(other)
        with (
            QdrantStore(*source) as one,
            pytest.raises(StoreError, match=r"has segments that .* has not, such as .*--to"),
        ):
            copy_collection(one, other, progress=False)
        assert contents(other).keys() == before.keys()
        other.client.delete_collection(other.collection)
        other.create(CollectionMetadata(space=fake_space(1)))
        with QdrantStore(*source) as one, pytest.raises(SpaceMismatchError, match="fake-1"):
            copy_collection(one, other, progress=False)
        other.client.delete_collection(other.collection)
        other.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
        with QdrantStore(*source) as one, pytest.raises(StoreError, match="holds segments of 1 s"):
            copy_collection(one, other, progress=False)
        assert other.client.count(other.collection).count == 0


def test_a_copy_that_lacks_something_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill((str(tmp_path / "a"), "videos"), tmp_path / "videos")
    write = QdrantStore.write_points
    monkeypatch.setattr(QdrantStore, "write_points", lambda self, points: write(self, points[1:]))
    with (
        QdrantStore(tmp_path / "a") as one,
        QdrantStore(tmp_path / "b") as other,
        pytest.raises(StoreError, match=r"'videos' has 31 points and 'videos' has 30.*Copy again"),
    ):
        copy_collection(one, other, progress=False)


def test_tenants_are_copied_and_kept_apart(places: tuple[Place, Place], tmp_path: Path) -> None:
    source, destination = places
    for seed, tenant in enumerate(("ada", "bob")):
        video = write_video(tmp_path / tenant / "a.mp4", seed=seed)
        with QdrantStore(*source, tenant=tenant) as store:
            ingest(store, video, FakeEncoder(), progress=False)  # type: ignore[arg-type]
    with QdrantStore(*source) as one, QdrantStore(*destination) as other:
        assert copy_collection(one, other, progress=False).written == 4
    assert_same(places)
    with QdrantStore(*destination, tenant="bob") as other:
        assert {hit.path for hit in other.search(np.ones(8), per_video=9)} == {str(tmp_path / "bob" / "a.mp4")}
    with QdrantStore(*destination) as other, pytest.raises(StoreError, match="keeps tenants apart"):
        other.search(np.ones(8))


def test_one_tenant_is_copied_alone(tmp_path: Path) -> None:
    """Between places of Qdrant too, where a copy is otherwise of all tenants."""
    first, second = QdrantClient(":memory:"), QdrantClient(":memory:")
    for seed, tenant in enumerate(("ada", "bob")):
        video = write_video(tmp_path / tenant / "a.mp4", seed=seed, segments=seed + 2)
        ingest(QdrantStore(first, tenant=tenant), video, FakeEncoder(), progress=False)  # type: ignore[arg-type]
    source, copied = (QdrantStore(client, tenant="bob") for client in (first, second))
    assert copy_collection(source, copied, progress=False).written == 3
    assert second.count("videos").count == 3
    assert {hit.path for hit in copied.search(np.ones(8))} == {str(tmp_path / "bob" / "a.mp4")}
    with pytest.raises(InputError, match="two tenants, 'bob' and 'ada'"):
        copy_collection(source, QdrantStore(second, tenant="ada"), progress=False)
    for itself in (MemoryStore(), QdrantStore(first, tenant="bob")):
        with pytest.raises(InputError, match="source and destination are both 'videos'"):
            copy_collection(itself, itself, progress=False)


def test_a_collection_is_not_copied_onto_itself_by_an_alias(qdrant_server: str, tmp_path: Path) -> None:
    name = f"copying-{uuid.uuid4().hex}"
    fill((qdrant_server, name), tmp_path / "videos")
    with QdrantStore(qdrant_server, name) as one, QdrantStore(qdrant_server, f"alias-{name}") as other:
        try:
            switch(other, name)
            with pytest.raises(InputError, match=f"are both '{name}'"):
                copy_collection(one, other, progress=False)
        finally:
            one.client.delete_collection(name)


def test_between_somebodys_own_clients(qdrant_server: str, tmp_path: Path) -> None:
    name = f"copying-{uuid.uuid4().hex}"
    fill((qdrant_server, name), tmp_path / "videos", store_options=CollectionOptions(shards=2))
    one, other = (qdrant_client(qdrant_server) for _ in range(2))
    memories = [QdrantClient(":memory:") for _ in range(2)]
    try:
        source, copied = QdrantStore(one, name), QdrantStore(other, f"{name}-copy")
        assert copy_collection(source, copied, progress=False).written == 30
        assert other.get_collection(f"{name}-copy").config.params.shard_number == 2  # as between URLs
        with pytest.raises(InputError, match=f"are both '{name}'"):
            copy_collection(source, QdrantStore(other, name), progress=False)
        first, second = (QdrantStore(client) for client in memories)
        for store, origin in ((first, copied), (second, first)):
            assert copy_collection(origin, store, progress=False).written == 30
        assert contents(second).keys() == contents(source).keys()
        with pytest.raises(InputError, match="are both in"):
            copy_collection(first, QdrantStore(memories[0], "other"), progress=False)
    finally:
        for collection in (name, f"{name}-copy"):
            one.delete_collection(collection)
        for client in (one, other, *memories):
            client.close()


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    memory = QdrantClient(":memory:")
    memory.create_collection("mine", {"clip": models.VectorParams(size=8, distance=models.Distance.COSINE)})
    with pytest.raises(StoreError, match="'mine' was made by something else"):
        copy_collection(QdrantStore(memory, "mine"), QdrantStore(tmp_path / "b"))
    with pytest.raises(InputError, match="are both in"):
        copy_collection(QdrantStore(tmp_path / "a", "x"), QdrantStore(tmp_path / "a", "y"))
    with pytest.raises(StoreError, match="no Qdrant store is here"):
        copy_collection(QdrantStore(tmp_path / "a"), QdrantStore(tmp_path / "b"))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_the_copy_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill((str(tmp_path / "a"), "videos"), tmp_path / "videos")
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "mine"]) == 0
    assert f"copied 30 segments; mine in {tmp_path / 'b'} is complete" in capsys.readouterr().out
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b"), "--collection", "nothing"]) == 1
    assert "has no collection 'nothing'; it has videos." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "present", "copied"),
    [
        (1, 0, "1 segment;"),
        (2000, 1, "2,000 segments, 1 was there already;"),
        (0, 2, "0 segments, 2 were there already;"),
    ],
)
def test_what_was_copied_in_words(written: int, present: int, copied: str) -> None:
    report = CopyReport("there", "videos", written=written, present=present, failures=0)
    assert str(report) == f"copied {copied} videos in there is complete"
