"""Databases beside Qdrant where they differ: index, connection, addresses, a process that is killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.open import open_store
from dits_adapter.stores.requests import ReadRequest, VideoFilter
from dits_adapter.stores.rows import FailureRow, SegmentRow
from tests.stores.fakes import fake_space, unit
from tests.stores.places import place

VIDEOS = 1500


def rows(n: int = VIDEOS, seed: int = 0) -> list[SegmentRow]:
    """Describe videos of two segments each, a hundredth of which are rare."""
    vectors = unit(np.random.default_rng(seed).normal(size=(2 * n, 8)))
    return [
        SegmentRow(
            id=f"{seed}-{at}",
            video_id=f"video-{seed}-{at // 2}",
            path=f"/{'rare' if at % 200 < 2 else 'common'} {at // 2}.mp4",
            start=float(at % 2),
            end=at % 2 + 1.0,
            timestamps=(at % 2 + 0.5,),
            duration=2.0,
            fps=10.0,
            decoder="none",
            size=1,
            mtime_ns=1,
            segments=2 if at % 2 else None,
            vector=vector,
            frame_vectors=vector[None],
        )
        for at, vector in enumerate(vectors)
    ]


@pytest.fixture(scope="module", params=["LanceDB", "pgvector"])
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind of database in turn, with an index over some thousand segments."""
    with (
        place(request.param, request, tmp_path_factory.mktemp("indexed")) as open_again,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(f"dits_adapter.stores.{request.param.lower()}._INDEXED", 1000)
        store = open_again()
        store.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
        store.write(rows())
        assert not is_indexed(store)
        store.finish()
        assert is_indexed(store)
        yield store


def is_indexed(store: Any) -> bool:
    return store._indexed(store._table(store.name), "vector") if hasattr(store, "_table") else store._indexed()


def test_an_index_finds_nearly_what_a_comparison_with_all_finds(indexed: VideoStore) -> None:
    queries = np.random.default_rng(5).normal(size=(20, 8)).astype(np.float32)
    found = indexed.search_batch(queries)
    exact = indexed.search_batch(queries, exact=True)
    common = [
        len({hit.id for hit in hits} & {hit.id for hit in all}) for hits, all in zip(found, exact, strict=True)
    ]
    assert np.mean(common) > 9
    segments = rows()
    for query, hits in zip(queries, exact, strict=True):
        scores = sorted((float(row.vector @ query / np.linalg.norm(query)) for row in segments), reverse=True)
        assert hits[0].score == pytest.approx(scores[0], abs=1e-5)
        assert all(hit.score <= scores[0] + 1e-5 for hit in hits)


def test_an_index_and_a_filter_leave_nothing_out(indexed: VideoStore) -> None:
    """An index that is followed for the nearest hundred of all finds few of the rare."""
    query = np.random.default_rng(6).normal(size=8)
    rare = indexed.search(query, limit=50, filter=VideoFilter(words="rare"))
    assert len(rare) == VIDEOS // 100
    assert all("rare" in (hit.path or "") for hit in rare)
    for _ in range(7):  # from the sixth on, PostgreSQL would take a statement for one that is worth preparing
        assert len(indexed.search(query, limit=VIDEOS, locate=False)) == VIDEOS


def test_what_is_written_after_the_index_is_found(indexed: VideoStore) -> None:
    late = rows(3, seed=1)
    indexed.write(late)
    assert indexed.search(late[0].vector)[0].id == late[0].id
    indexed.finish()
    assert indexed.search(late[0].vector)[0].id == late[0].id
    assert indexed.count() == 2 * VIDEOS + 6


WRITER = """
import sys
from dataclasses import fields, replace
from tests.stores.test_databases import *
store = open_store(sys.argv[1])
store.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
for row in rows(500):
    store.write([row])
    print(row.id, flush=True)
"""


def test_metadata_of_a_newer_version_are_refused(indexed: Any) -> None:
    metadata = indexed.metadata()
    indexed._write_metadata(metadata.model_copy(update={"format": 2}))
    with pytest.raises(StoreError, match="a newer dits_adapter may have written it"):
        indexed.metadata()
    indexed._write_metadata(metadata)
    assert indexed.metadata() == metadata


def test_what_was_written_before_a_kill_is_there(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    address = f"lancedb://{tmp_path}/lance"
    with subprocess.Popen([sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(7)]
        writer.send_signal(signal.SIGKILL)
    with open_store(address) as store:
        read = {segment.id: segment.vector for segment in store.read(ReadRequest(vectors=True))}
        assert set(said) <= read.keys()
        for row in rows(500):
            if row.id in read:
                np.testing.assert_array_equal(read[row.id], row.vector)
        store.write(rows(500))
        assert store.count() == 1000


def test_a_collection_that_milvus_does_not_hold_in_memory_is_loaded(tmp_path: Path) -> None:
    """As after every start of Milvus Lite, which lives as long as its process."""
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    failure = FailureRow("/v/broken.mp4", 1, 2, "is no video")
    with open_store(f"milvus://{tmp_path}/lite.db") as store:
        store.create(CollectionMetadata(space=fake_space()))
        store.write(rows(3))
        store.write_failures([failure])
    client = pymilvus.MilvusClient(f"{tmp_path}/lite.db")
    for name in client.list_collections():
        client.release_collection(name)
    client.close()
    with open_store(f"milvus://{tmp_path}/lite.db") as store:
        assert len(store.search(np.ones(8), limit=3)) == 3
        assert [record.failure for record in store.records() if record.failure] == ["is no video"]


def test_frame_vectors_are_kept_as_far_as_milvus_has_room(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    frames = unit(np.random.default_rng(0).normal(size=(40, 512)))
    with open_store(f"milvus://{tmp_path}/lite.db") as store:
        store.create(CollectionMetadata(space=fake_space(width=512)))
        for n, tolerance in ((20, 0), (40, 1e-3)):
            (row, _) = rows(1, seed=n)
            store.write([replace(row, vector=frames[0], frame_vectors=frames[:n])])
            (read,) = store.read(ReadRequest(ids=[row.id], frames=True))
            np.testing.assert_allclose(read.frame_vectors, frames[:n], atol=tolerance)
        with pytest.raises(InputError, match="80 frames of width 512 are too long"):
            store.write([replace(row, frame_vectors=np.concatenate([frames, frames]))])


def test_a_lost_connection_is_made_anew(postgres_server: str) -> None:
    import psycopg

    def end_connections() -> None:
        with psycopg.connect(postgres_server, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    with open_store(postgres_server, "lost") as store:
        store.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
        end_connections()
        store.write(rows(2))
        end_connections()
        assert store.count() == 4
        reading = store.read(ReadRequest())
        next(reading)
        end_connections()
        assert len(list(reading)) == 3
    with open_store(postgres_server, "lost", patience=0.0) as store:
        store.count()
        end_connections()
        with pytest.raises(StoreError, match="terminat"):
            store.count()


SECRET = "pass-word"
ADDRESSES = [
    f"postgresql://me:{SECRET}@127.0.0.1:9/videos",
    f"postgresql://me@127.0.0.1:9/videos?password={SECRET}",
    f"milvus://me:{SECRET}@127.0.0.1:9/videos",
    f"nosuch://me@127.0.0.1:9/videos?password=x@{SECRET}",
    f"nosuch://me:x://?{SECRET}@host",
    f"nosuch://me:{SECRET}@host/videos",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_password_is_never_shown(address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("a dog\n")
    commands = [
        ["search", "a dog", "--store", address, "--adapter", "demo-linear"],
        ["ingest", str(tmp_path), "--store", address, "--encoder", "demo-clip", "--dry-run"],
        ["recall", str(tmp_path / "texts.txt"), "--store", address, "--adapter", "demo-linear"],
        ["copy", address, str(tmp_path / "folder")],
        ["copy", str(tmp_path / "folder"), address],
        ["search", "a dog", "--store", address, "--vector", "clip", "--adapter", "demo-linear"],
    ]
    for command in commands:
        code = main(command)
        captured = capfd.readouterr()
        assert SECRET not in captured.out + captured.err, command
        assert code == 1, (command, captured)


class Stopped(Exception):
    """End of a connection before it is made."""


@pytest.mark.parametrize(
    ("address", "module", "client", "variable"),
    [
        ("postgresql://me@127.0.0.1:9/videos", "psycopg", "connect", "PGPASSWORD"),
        ("postgresql://me:own@127.0.0.1:9/videos", "psycopg", "connect", "PGPASSWORD"),
        ("milvus://127.0.0.1:9", "dits_adapter.stores.milvus", "MilvusClient", "MILVUS_TOKEN"),
        ("http://127.0.0.1:9", "dits_adapter.stores.qdrant._connection", "QdrantClient", "QDRANT_API_KEY"),
    ],
)
def test_a_password_is_read_from_the_file_that_the_environment_names(
    address: str, module: str, client: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def connect(*arguments: Any, **options: Any) -> None:
        given.extend((*arguments, *options.values()))
        raise Stopped

    monkeypatch.setattr(f"{module}.{client}", connect)
    monkeypatch.delenv(variable, raising=False)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    with pytest.raises(Stopped):
        open_store(address).open()
    assert any(SECRET in str(each) for each in given) is ("own" not in address)


def test_an_index_is_built_where_shared_memory_is_small(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    execute = psycopg.Connection.execute

    def in_a_container(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        if "CREATE INDEX" in (query if isinstance(query, str) else query.as_string(self)):
            (setting,) = execute(self, "SHOW max_parallel_maintenance_workers").fetchone().values()
            if setting != "0":
                raise psycopg.errors.DiskFull("could not resize shared memory segment: No space left on device")
        return execute(self, query, *arguments, **options)

    monkeypatch.setattr("dits_adapter.stores.pgvector._INDEXED", 2)
    with open_store(postgres_server, "in_a_container") as store:
        store.create(CollectionMetadata(space=fake_space()))
        store.write(rows(4))
        monkeypatch.setattr(psycopg.Connection, "execute", in_a_container)
        store.finish()
        assert is_indexed(store)


def test_names_that_a_database_does_not_take_are_refused(tmp_path: Path, postgres_server: str) -> None:
    metadata = CollectionMetadata(space=fake_space())
    with pytest.raises(InputError, match="made of letters, digits, dots"):
        open_store(f"lancedb://{tmp_path}/lance", "a/b").create(metadata)
    with pytest.raises(InputError, match="does not begin with a digit"):
        open_store(f"milvus://{tmp_path}/lite.db", "a-b").create(metadata)
    for name in ("", "x" * 55, "ä" * 28, "dits_adapter"):
        with pytest.raises(InputError, match="has 1 to 54 bytes"):
            open_store(postgres_server, name).create(metadata)
    with open_store(postgres_server, 'a "quoted"; name\'s') as store:
        store.create(metadata)
        store.write(rows(1))
        assert store.search(np.ones(8))[0].id


def test_a_table_that_was_dropped_is_made_anew(postgres_server: str) -> None:
    """Metadata of the dropped table are not those of the new one, and a longer name opens neither."""
    import psycopg

    name = "ö" * 27
    with open_store(postgres_server, name) as store:
        store.create(CollectionMetadata(space=fake_space(width=16)))
        with psycopg.connect(postgres_server) as other:
            other.execute(f'DROP TABLE "{name}"')
        store.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
        store.write(rows(1))
        assert (store.open(), store.count()) == (fake_space(), 2)
    with pytest.raises(StoreError, match="has no collection"):
        open_store(postgres_server, name + "ö" * 10).metadata()


@pytest.mark.parametrize("patience", [-1.0, float("nan")])
def test_a_patience_that_is_no_time_is_refused(patience: float) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match="it is a number of seconds"):
        open_store("postgresql://localhost/videos", patience=patience)


@pytest.mark.parametrize("address", ["milvus://", "milvus://host:port", "milvus://[::1/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(InputError, match="is no address of Milvus"):
        open_store(address).metadata()


def test_the_page_of_stores_says_what_each_can_do() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stores.md").read_text("utf-8")
    names = [field.name for field in fields(Capabilities)]
    _, _, rest = page.partition(f"| address | {' | '.join(names)} |\n")
    table = rest.partition("\n\n")[0].splitlines()[1:]
    described = {}
    for line in table:
        address, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        described[address.strip("`")] = Capabilities(**{n: c == "yes" for n, c in zip(names, cells, strict=True)})
    assert len(described) == 7
    for address, capabilities in described.items():
        assert open_store(address).capabilities == capabilities, address
    for address in re.findall(r"`(\w+://[\w./:@-]+)`", page):
        open_store(address)


@pytest.mark.parametrize("address", ["lancedb://{}/lance", "milvus://{}/lite.db"])
def test_looking_makes_nothing(address: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no collection"):
        open_store(address.format(tmp_path)).metadata()
    assert list(tmp_path.iterdir()) == []
