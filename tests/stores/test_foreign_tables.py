"""Tables that another program made, with keys and columns of its own: adopted, trusted, refused."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder
from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.open import open_store
from dits_adapter.stores.requests import ReadRequest, VideoFilter
from tests.stores.fakes import fake_space, unit

CLIPS = 30
VECTORS = unit(np.random.default_rng(3).normal(size=(CLIPS, 8))) * 3  # whose norms are not one
LAYOUT = PointLayout(vector="embedding", video="film", title="name", path="url", start="at")
QUERY = np.random.default_rng(4).normal(size=8).astype(np.float32)


def clips() -> list[dict[str, Any]]:
    return [
        {"film": n // 3, "name": f'It\'s "film" {n // 3}', "url": f"s3://films/{n // 3}.mp4", "at": float(n % 3)}
        for n in range(CLIPS)
    ]


def _lancedb(request: pytest.FixtureRequest, folder: Path) -> Callable[..., TableStore]:
    lancedb = pytest.importorskip("lancedb")
    rows = [{"id": f"clip '{n}'", **clip, "embedding": VECTORS[n]} for n, clip in enumerate(clips())]
    rows = [row | {"added": datetime.datetime(2026, 1, 2), "owner": {"name": "ann"}} for row in rows]
    lancedb.connect(f"{folder}/lance").create_table("mine", rows)
    return lambda **options: open_store(f"lancedb://{folder}/lance", "mine", **options)  # type: ignore[return-value]


def _pgvector(request: pytest.FixtureRequest, folder: Path) -> Callable[..., TableStore]:
    url = request.getfixturevalue("postgres_server")
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS mine")
        connection.execute(
            "CREATE TABLE mine (clip uuid PRIMARY KEY, film int, name varchar(80), url text, at numeric, "
            "added timestamptz DEFAULT now(), embedding vector(8), other halfvec(4))"
        )
        if connection.execute("SELECT to_regclass('dits_adapter')").fetchone() != (None,):
            connection.execute("DELETE FROM dits_adapter WHERE collection = 'mine'")
        for clip, vector in zip(clips(), VECTORS, strict=True):
            connection.execute(
                "INSERT INTO mine (clip, film, name, url, at, embedding) VALUES (%s, %s, %s, %s, %s, %s::vector)",
                [uuid.uuid4(), *clip.values(), str(vector.tolist())],
            )
    return lambda **options: open_store(url, "mine", **options)  # type: ignore[return-value]


def _milvus(request: pytest.FixtureRequest, folder: Path) -> Callable[..., TableStore]:
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    client = pymilvus.MilvusClient(f"{folder}/lite.db")
    schema = client.create_schema(enable_dynamic_field=False)
    schema.add_field("clip", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("film", pymilvus.DataType.INT64)
    for name in ("name", "url"):
        schema.add_field(name, pymilvus.DataType.VARCHAR, max_length=80)
    schema.add_field("at", pymilvus.DataType.FLOAT)
    schema.add_field("embedding", pymilvus.DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection("mine", schema=schema, index_params=index)
    client.insert("mine", [{"clip": n, **clip, "embedding": VECTORS[n]} for n, clip in enumerate(clips())])
    return lambda **options: open_store(f"milvus://{folder}/lite.db", "mine", **options)  # type: ignore[return-value]


@pytest.fixture(params=[_lancedb, _pgvector, _milvus], ids=["LanceDB", "pgvector", "Milvus Lite"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., TableStore]]:
    stores: list[TableStore] = []
    opening = request.param(request, tmp_path)

    def open_again(**options: Any) -> TableStore:
        stores.append(opening(**options))
        return stores[-1]

    yield open_again
    for store in stores:
        store.close()


def test_an_adopted_table_is_searched_like_one_of_ours(
    foreign: Callable[..., TableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="something other than dits_adapter made it"):
        foreign(space=fake_space()).search(QUERY)
    foreign().adopt(fake_space(), LAYOUT)
    store = foreign(space=fake_space())
    cosines = VECTORS @ QUERY / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(QUERY)
    hits = store.search(QUERY, limit=4)
    best = sorted(range(CLIPS // 3), key=lambda film: -cosines[3 * film : 3 * film + 3].max())[:4]
    assert [hit.video_id for hit in hits] == [str(film) for film in best]
    nearest = [cosines[3 * film : 3 * film + 3] for film in best]
    assert [hit.score for hit in hits] == pytest.approx([of.max() for of in nearest], abs=1e-5)
    assert [hit.title for hit in hits] == [f'It\'s "film" {film}' for film in best]
    assert [hit.start for hit in hits] == [float(of.argmax()) for of in nearest]
    assert (hits[0].timestamp, hits[0].end) == (None, None)
    selects = []
    select = store._select
    monkeypatch.setattr(store, "_select", lambda *asked: selects.append(asked) or select(*asked))
    assert (store.count(), store.count_videos(), store.count_videos()) == (CLIPS, CLIPS // 3, CLIPS // 3)
    assert len(selects) <= 1  # kept, or counted by the database
    (read,) = store.read(ReadRequest(ids=[hits[0].id], vectors=True))
    np.testing.assert_allclose(read.vector, VECTORS[cosines.argmax()], atol=1e-5)
    assert len(list(store.read(ReadRequest(field="film", values=["3"])))) == 3
    assert len(store.search(QUERY, limit=99, per_video=3)) == CLIPS
    (only,) = store.search(QUERY, filter=VideoFilter(words="It's 7"))
    assert only.video_id == "7"
    assert store.search(QUERY, filter=VideoFilter(words="it's")) == []
    with pytest.raises(InputError, match="no column 'duration'"):
        store.search(QUERY, filter=VideoFilter(min_duration=1))
    assert not store.capabilities.frames
    with pytest.raises(StoreError, match="no frame vectors"):
        store.search(QUERY, rerank="maxsim")
    alone, nearest_of, requests = [store.search(query, limit=4) for query in (QUERY, -QUERY)], store._nearest, []
    monkeypatch.setattr(store, "_nearest", lambda *asked: requests.append(asked) or nearest_of(*asked))
    ids = [[hit.id for hit in hits] for hits in store.search_batch([QUERY, -QUERY], limit=4)]
    assert ids == [[hit.id for hit in hits] for hits in alone]
    assert len(requests) == 1


def test_a_table_is_adopted_anew_and_trusted_without(foreign: Callable[..., TableStore]) -> None:
    layout = PointLayout(vector="embedding", video="film")
    with pytest.warns(UserWarning, match="does not say which embedding space"):
        trusted = foreign(space=fake_space(), layout=layout, trust_foreign=True).search(QUERY, limit=3)
    foreign().adopt(fake_space(1), LAYOUT)
    foreign().adopt(fake_space(), LAYOUT)
    assert [hit.id for hit in foreign(space=fake_space()).search(QUERY, limit=3)] == [hit.id for hit in trusted]
    with pytest.raises(SpaceMismatchError):
        foreign(space=fake_space(1)).search(QUERY)


def test_what_cannot_be_is_refused_and_the_table_stays(foreign: Callable[..., TableStore]) -> None:
    with pytest.raises(StoreError, match=r"no vector 'clip'; it has 'embedding'"):
        foreign().adopt(fake_space(), PointLayout(vector="clip"))
    with pytest.raises(InputError, match="no column 'title'"):
        foreign().adopt(fake_space(), PointLayout(vector="embedding", title="title"))
    with pytest.raises(SpaceMismatchError, match="has width 8; the encoder has 16"):
        foreign().adopt(fake_space(width=16), PointLayout(vector="embedding"))
    with pytest.raises(StoreError, match="was made by something else"):
        foreign().create(CollectionMetadata(space=fake_space()))
    foreign().adopt(fake_space(), LAYOUT)
    store = foreign()
    with pytest.raises(StoreError, match="was made by something else"):
        store.create(CollectionMetadata(space=fake_space()))
    with pytest.raises(StoreError, match="something else"):
        store.records()
    with pytest.raises(StoreError, match=r"another program: its table gets no .* \(`dits-adapter bank`\)"):
        store.set_bias(None)
    assert store.count() == CLIPS


def test_milvus_is_read_on_behind_any_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    from dits_adapter.stores import milvus

    keys = ['a"b', "c\\d", "e'f", 'g" or clip != "', "é", "y", "z"]
    client = pymilvus.MilvusClient(f"{tmp_path}/lite.db")
    schema = client.create_schema(enable_dynamic_field=False)
    schema.add_field("clip", pymilvus.DataType.VARCHAR, is_primary=True, max_length=80)
    schema.add_field("embedding", pymilvus.DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection("mine", schema=schema, index_params=index)
    client.insert("mine", [{"clip": key, "embedding": vector} for key, vector in zip(keys, VECTORS, strict=False)])
    monkeypatch.setattr(milvus, "_PAGE", 2)
    with open_store(f"milvus://{tmp_path}/lite.db", "mine") as store:
        store.adopt(fake_space(), PointLayout(vector="embedding"))  # type: ignore[attr-defined]
        assert sorted(segment.id for segment in store.read(ReadRequest())) == sorted(keys)
        assert len(list(store.read(ReadRequest(limit=3)))) == 3


GAPS = [
    {"id": None if n == 7 else n, "film": None if n == 4 else n // 3, "frames": 25, "words": f"clip {n}"}
    for n in range(12)
]
"""Rows of a table where anything may be null."""

DIRECTIONS = [None if n == 2 else [0.0] * 8 if n == 5 else VECTORS[n].tolist() for n in range(12)]


def _lancedb_with_gaps(request: pytest.FixtureRequest, folder: Path) -> str:
    lancedb, pa = pytest.importorskip("lancedb"), pytest.importorskip("pyarrow")
    kinds = {"id": pa.int64(), "film": pa.int64(), "frames": pa.int64(), "words": pa.string()}
    schema = pa.schema([*kinds.items(), ("embedding", pa.list_(pa.float32(), 8))])
    rows = [row | {"embedding": vector} for row, vector in zip(GAPS, DIRECTIONS, strict=True)]
    lancedb.connect(f"{folder}/lance").create_table("gaps", pa.Table.from_pylist(rows, schema=schema))
    return f"lancedb://{folder}/lance"


def _pgvector_with_gaps(request: pytest.FixtureRequest, folder: Path) -> str:
    url: str = request.getfixturevalue("postgres_server")
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS gaps")
        connection.execute("CREATE TABLE gaps (id int, film int, frames int, words text, embedding vector)")
        for row, vector in zip(GAPS, DIRECTIONS, strict=True):
            values = [*row.values(), None if vector is None else str(vector)]
            connection.execute("INSERT INTO gaps VALUES (%s, %s, %s, %s, %s::vector)", values)
    return url


@pytest.mark.parametrize("table", [_lancedb_with_gaps, _pgvector_with_gaps], ids=["LanceDB", "pgvector"])
def test_rows_with_gaps(
    table: Callable[[pytest.FixtureRequest, Path], str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """No row without a key, a vector or a direction is found; one without a video stands for itself."""
    options: dict[str, Any] = {"space": fake_space(), "trust_foreign": True}
    layout = PointLayout(vector="embedding", video="film", title="words")
    with open_store(table(request, tmp_path), "gaps", layout=layout, **options) as store:
        with pytest.warns(UserWarning, match="does not say which embedding space"):
            hits = store.search(QUERY, per_video=3, limit=5)
        cosines = VECTORS[:12] @ QUERY / np.linalg.norm(VECTORS[:12], axis=1) / np.linalg.norm(QUERY)
        whole = [n for n in range(12) if n not in (2, 5, 7)]
        assert sorted(hit.id for hit in hits) == whole
        assert [hit.score for hit in hits] == pytest.approx([cosines[hit.id] for hit in hits], abs=1e-5)
        assert next(hit for hit in hits if hit.id == 4).video_id == "4"
        assert [hit.title for hit in hits] == [f"clip {hit.id}" for hit in hits]
        assert [hit.id for hit in store.search(QUERY, limit=1)] == [max(whole, key=lambda n: cosines[n])]
        assert not store.capabilities.frames
        with pytest.raises(StoreError, match="no frame vectors"):
            store.search(QUERY, rerank="maxsim")
        assert 7 not in [segment.id for segment in store.read(ReadRequest(vectors=True, frames=True))]
    layout = PointLayout(vector="embedding", video="embedding")
    with (
        open_store(store.location, "gaps", layout=layout, **options) as store,
        pytest.raises(InputError, match="neither texts nor integers"),
    ):
        store.search(QUERY)


def test_the_command_adopts_a_table(
    foreign: Callable[..., TableStore], capsys: pytest.CaptureFixture[str]
) -> None:
    store = foreign()
    options = ["--store", store._address if "://" in store._address else store.location, "--collection", "mine"]
    assert main(["adopt", *options, "--encoder", "demo-clip", "--vector", "embedding"]) == 1
    assert "has width 8; the encoder has" in capsys.readouterr().err


def test_an_adopted_table_is_searched_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lancedb = pytest.importorskip("lancedb")
    width = DITSQueryEncoder.from_pretrained("demo-linear").space.video.width
    vectors = unit(np.random.default_rng(0).normal(size=(4, width))).astype(np.float32)
    rows = [{"id": f"clip-{n}", "name": f"film {n}", "vector": vector} for n, vector in enumerate(vectors)]
    lancedb.connect(f"{tmp_path}/lance").create_table("mine", rows)
    table = ["--store", f"lancedb://{tmp_path}/lance", "--collection", "mine"]
    search = ["search", "a red circle", *table, "--adapter", "demo-linear"]
    assert main(search) == 1
    assert "dits-adapter adopt" in capsys.readouterr().err
    described = ["--encoder", "demo-clip", "--vector", "vector", "--title-field", "name"]
    assert main(["adopt", *table, *described]) == 0
    capsys.readouterr()
    assert main(search) == 0
    printed = capsys.readouterr().out
    assert all(f"film {n}" in printed for n in range(4))
