"""Tables that another program made, with keys and columns of its own: adopted, trusted, refused."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.open import open_store
from dits_adapter.stores.requests import ReadRequest, VideoFilter
from dits_adapter.stores.rows import CollectionMetadata, PointLayout
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


def test_an_adopted_table_is_searched_like_one_of_ours(foreign: Callable[..., TableStore]) -> None:
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
    assert (store.count(), store.count_videos()) == (CLIPS, CLIPS)
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
    with pytest.raises(StoreError, match="another program"):
        store.set_bias(None)
    assert store.count() == CLIPS


def test_the_command_adopts_a_table(
    foreign: Callable[..., TableStore], capsys: pytest.CaptureFixture[str]
) -> None:
    store = foreign()
    options = ["--store", store._address if "://" in store._address else store.location, "--collection", "mine"]
    assert main(["adopt", *options, "--encoder", "demo-clip", "--vector", "embedding"]) == 1
    assert "has width 8; the encoder has" in capsys.readouterr().err
