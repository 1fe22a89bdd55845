"""A collection that another program made and a CSV of (query, id): imported, whatever the ids and the database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter.cli import main
from dits_adapter.data.import_vectors import VectorFiles, import_vectors
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.errors import DITSError, InputError, SpaceMismatchError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.adopting import adopt_collection
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import PointLayout
from dits_adapter.stores.open import open_store
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.conftest import postgres_server  # noqa: F401  (a fixture)
from tests.stores.fakes import unit

NAME, WIDTH, VIDEOS = "acme/embed@1", 16, 12
VECTORS = unit(np.random.default_rng(0).normal(size=(VIDEOS, WIDTH)))
NORMS = np.random.default_rng(1).uniform(0.5, 4, size=(VIDEOS, 1))
ABOUT = np.random.default_rng(2).permutation(VIDEOS)[:9].repeat(2)
TEXTS = (VECTORS[ABOUT] + 0.1 * np.random.default_rng(3).normal(size=(18, WIDTH))).astype(np.float32)
SPACE = EmbeddingSpace.declare(NAME, WIDTH)
IDS: dict[str, list[Any]] = {
    "integer": [1000 + n for n in range(VIDEOS)],
    "uuid": [str(uuid.UUID(int=(n + 7) << 90, version=4)) for n in range(VIDEOS)],
    "string": [f"clip é {n}'s" for n in range(VIDEOS)],
}


def _qdrant(ids: list[Any], kind: str, request: Any, folder: Path, **options: Any) -> Iterator[VideoStore]:
    client = QdrantClient(":memory:")
    client.create_collection("mine", models.VectorParams(size=WIDTH, **options))
    points = [
        models.PointStruct(
            id=n if kind == "string" else ids[n], vector=vector.tolist(), payload={"year": n, "film": ids[n]}
        )
        for n, vector in enumerate(VECTORS * NORMS)
    ]
    client.upsert("mine", points)
    store = QdrantStore(client, "mine")
    adopt_collection(store, SPACE, PointLayout(vector=""))
    yield store


def _cosine(*arguments: Any) -> Iterator[VideoStore]:
    yield from _qdrant(*arguments, distance=models.Distance.COSINE)


def _dot(*arguments: Any) -> Iterator[VideoStore]:
    yield from _qdrant(*arguments, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16)


def _lancedb(ids: list[Any], kind: str, request: Any, folder: Path) -> Iterator[VideoStore]:
    lancedb, pa = pytest.importorskip("lancedb"), pytest.importorskip("pyarrow")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array((VECTORS * NORMS).ravel().astype(np.float16)), WIDTH)
    table = pa.table({"id": ids, "year": list(range(VIDEOS)), "vector": vectors})
    lancedb.connect(f"{folder}/lance").create_table("mine", table)
    store = open_store(f"lancedb://{folder}/lance", "mine")
    store.adopt(SPACE, PointLayout(vector=""))  # type: ignore[attr-defined]
    yield store


def _pgvector(ids: list[Any], kind: str, request: Any, folder: Path) -> Iterator[VideoStore]:
    url = request.getfixturevalue("postgres_server")
    import psycopg

    name = f"mine_{kind}"
    column = {"integer": "bigint", "uuid": "uuid", "string": "text"}[kind]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(
            f"CREATE TABLE {name} (clip {column} PRIMARY KEY, year int, embedding halfvec({WIDTH}))"
        )
        for n, vector in enumerate(VECTORS * NORMS):
            row = [ids[n], n, str(vector.tolist())]
            connection.execute(f"INSERT INTO {name} VALUES (%s, %s, %s::halfvec)", row)
    with open_store(url, name) as store:
        store.adopt(SPACE, PointLayout(vector=""))  # type: ignore[attr-defined]
        yield store


@pytest.fixture(params=IDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[_cosine, _dot, _lancedb, _pgvector], ids=["Qdrant", "dot, float16", "LanceDB", "pgvector"])
def store(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[VideoStore]:
    yield from request.param(IDS[kind], kind, request, tmp_path)


def write_files(folder: Path, ids: list[Any], **changes: str) -> VectorFiles:
    np.save(folder / "texts.npy", TEXTS)
    rows = [f'a query,"{changes.get(str(ids[video]), ids[video])}"' for video in ABOUT]
    (folder / "clicks.csv").write_text("\n".join(["query,id", *rows]), "utf-8")
    return VectorFiles(texts=folder / "texts.npy", videos=None, pairs=folder / "clicks.csv")


def assert_right(pairs: Pairs, ids: list[Any], videos: np.ndarray = VECTORS, atol: float = 2e-3) -> None:
    rows = list(dict.fromkeys(ABOUT.tolist()))
    assert list(pairs.video_ids) == [str(ids[row]) for row in rows]
    np.testing.assert_allclose(pairs.video, videos[rows], atol=atol)
    np.testing.assert_allclose(np.linalg.norm(pairs.video, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(pairs.text, TEXTS)
    assert [rows[label] for label in pairs.labels] == ABOUT.tolist()
    assert pairs.space == SPACE


def imported(files: VectorFiles, store: VideoStore, out: Path, **changes: Any) -> Any:
    given = {**files.__dict__, "videos": store, **changes}
    return import_vectors(VectorFiles(**given), out, SPACE, progress=False)


def test_ids_of_every_kind_in_every_database(store: VideoStore, kind: str, tmp_path: Path) -> None:
    report = imported(write_files(tmp_path, IDS[kind]), store, tmp_path / "cache")
    assert (report.texts, report.videos, report.failures) == (18, 9, [])
    assert_right(load_pairs(tmp_path / "cache"), IDS[kind])


@pytest.fixture
def qdrant(tmp_path: Path) -> VideoStore:
    return next(_cosine(IDS["string"], "string", None, tmp_path))


def test_a_video_that_is_not_there_is_a_failure_until_it_is(qdrant: QdrantStore, tmp_path: Path) -> None:
    ids = IDS["string"]
    missing = str(ids[ABOUT[4]])
    (point,) = qdrant.client.scroll("mine", models.Filter(must=[_is(missing)]), with_vectors=True)[0]
    qdrant.client.delete("mine", [point.id])
    files = write_files(tmp_path, ids)
    report = imported(files, qdrant, tmp_path / "cache")
    assert (report.texts, report.videos, report.skipped_texts) == (16, 8, 2)
    assert [(failed.id, failed.reason) for failed in report.failures] == [
        (missing, "the collection has no such video")
    ]
    qdrant.client.upsert("mine", [models.PointStruct(**point.model_dump(include={"id", "vector", "payload"}))])
    report = imported(files, qdrant, tmp_path / "cache")
    assert (report.new_texts, report.new_videos, report.failures) == (0, 1, [])
    assert_right(load_pairs(tmp_path / "cache"), ids)


def test_a_cache_of_one_collection_is_not_finished_from_another(qdrant: QdrantStore, tmp_path: Path) -> None:
    files = write_files(tmp_path, IDS["string"])
    imported(files, qdrant, tmp_path / "cache")
    vectors = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
    qdrant.client.create_collection("other", vectors)
    points = qdrant.client.scroll("mine", limit=VIDEOS, with_vectors=True)[0]
    qdrant.client.upsert(
        "other", [models.PointStruct(**p.model_dump(include={"id", "vector", "payload"})) for p in points]
    )
    other = QdrantStore(qdrant.client, "other")
    adopt_collection(other, SPACE, PointLayout(vector=""))
    with pytest.raises(DITSError, match="begun from other pairs or vectors"):
        imported(files, other, tmp_path / "cache")


def test_numbers_that_are_values_of_two_fields_are_not_guessed(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("mine", models.VectorParams(size=WIDTH, distance=models.Distance.COSINE))
    client.upsert(
        "mine",
        [
            models.PointStruct(id=n, vector=VECTORS[n].tolist(), payload={"film": (n + 1) % VIDEOS, "same": n})
            for n in range(VIDEOS)
        ],
    )
    store = QdrantStore(client, "mine")
    adopt_collection(store, SPACE, PointLayout(vector=""))
    files = write_files(tmp_path, list(range(VIDEOS)))
    with pytest.raises(InputError, match="of the segments' own ids and of the field 'film' and"):
        imported(files, store, tmp_path / "cache")
    with pytest.warns(UserWarning, match="not sure that texts are nearer to their own videos"):
        imported(files, store, tmp_path / "cache", id_field="film")
    assert_right(load_pairs(tmp_path / "cache"), list(range(VIDEOS)), np.roll(VECTORS, 1, axis=0), 1e-6)
    client.delete_payload("mine", ["film"], points=list(range(VIDEOS)))
    imported(files, store, tmp_path / "other")  # two fields that mean the same segments are no matter
    assert_right(load_pairs(tmp_path / "other"), list(range(VIDEOS)), VECTORS, 1e-6)


def test_a_uuid_is_one_however_it_is_spelled(tmp_path: Path) -> None:
    store = next(_cosine(IDS["uuid"], "uuid", None, tmp_path))
    spelled = [name.upper() if n % 2 else name.replace("-", "") for n, name in enumerate(IDS["uuid"])]
    report = imported(write_files(tmp_path, spelled), store, tmp_path / "cache")
    assert report.failures == []
    assert_right(load_pairs(tmp_path / "cache"), spelled)


def _is(film: str) -> models.FieldCondition:
    return models.FieldCondition(key="film", match=models.MatchValue(value=film))


def test_what_does_not_fit_is_refused(qdrant: QdrantStore, tmp_path: Path) -> None:
    files = write_files(tmp_path, [f"other {n}" for n in range(VIDEOS)])
    for field, message in (
        (
            None,
            r"not one of its ids .* the collection has .*--id-field \(tried: '', .*'film'",
        ),
        ("film", r"not one of its ids .* the collection has .clip é 0's.* \(now 'film'\)"),
        ("fim", "has no payload field 'fim'; did you mean 'film'"),
    ):
        with pytest.raises(InputError, match=message):
            imported(files, qdrant, tmp_path / "cache", id_field=field)
    with pytest.raises(InputError, match=r"says of no text which video it describes; give a CSV file \(pairs\)"):
        imported(files, qdrant, tmp_path / "cache", pairs=None)
    with pytest.raises(InputError, match=r"ids is a file beside videos in \.npy"):
        imported(files, qdrant, tmp_path / "cache", ids=tmp_path / "ids.txt")
    for changes, message in (
        ({"texts": str(files.texts)}, r"texts is a str; it is a Path or a pyarrow\.Table\."),
        ({"texts": qdrant}, "texts is a QdrantStore; it is a Path"),
        ({"videos": None}, "videos is a NoneType; .* or a VideoStore"),
    ):
        with pytest.raises(InputError, match=message):
            imported(files, qdrant, tmp_path / "cache", **changes)
    given = VectorFiles(**{**files.__dict__, "videos": qdrant})
    with pytest.raises(SpaceMismatchError, match="acme/embed"):
        import_vectors(given, tmp_path / "cache", EmbeddingSpace.declare("acme/embed@2", WIDTH), progress=False)
    assert not (tmp_path / "cache").exists()


def test_the_journey_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lancedb = pytest.importorskip("lancedb")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    segments = VECTORS.repeat(2, axis=0) + 0.05 * rng.normal(size=(2 * VIDEOS, WIDTH))
    films = [name for name in IDS["string"] for _ in range(2)]
    rows = [{"id": n, "film": films[n], "vector": segments[n].astype(np.float32)} for n in range(2 * VIDEOS)]
    lancedb.connect("lance").create_table("clips", rows)
    write_files(tmp_path, IDS["string"])
    np.save("queries.npy", VECTORS[:1])
    mine = ["--store", "lancedb://lance", "--collection", "clips"]
    encoder = ["--encoder", f"declared:{NAME}"]
    assert main(["adopt", *mine, *encoder, "--video-field", "film"]) == 0
    with pytest.warns(UserWarning, match="has several segments of a video, such as 2 of"):
        assert main(["import", "texts.npy", "--pairs", "clicks.csv", *mine, *encoder, "--out", "cache"]) == 0
    pairs = unit(segments).reshape(VIDEOS, 2, WIDTH).mean(axis=1)
    assert_right(load_pairs("cache"), IDS["string"], unit(pairs), 1e-6)
    assert main(["search", "--vectors", "queries.npy", "--adapter", encoder[1], *mine, "--limit", "1"]) == 0
    assert IDS["string"][0] in capsys.readouterr().out
    for wrong, message in (
        (["texts.npy", "texts.npy", *mine], "give VIDEOS, or the collection that they are in"),
        (["texts.npy"], "give VIDEOS, or the collection that they are in"),
        (
            ["texts.npy", *mine, "--trust-foreign"],
            "dits-adapter adopt --encoder declared:acme/embed@1 --store lancedb://lance --collection clips",
        ),
        (
            ["texts.npy", "--store", "postgresql://me:secret@h/v", "--trust-foreign"],
            "dits-adapter adopt --encoder declared:acme/embed@1 --store postgresql://me@h/v --collection videos",
        ),
        (["texts.npy", "texts.npy", "--trust-foreign"], "--trust-foreign is for vectors of a collection"),
        (["texts.npy", "texts.npy", "--id-field", "film"], "--id-field is for vectors of a collection"),
    ):
        assert main(["import", *wrong, *encoder, "--out", "none"]) == 1
        assert message in capsys.readouterr().err
    assert main(["embed", "clicks.csv", *encoder, "--id-field", "film", "--out", "none"]) == 1
    assert "--id-field is for vectors of a collection" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table", ".arrow", ".feather", ".parquet"])
def test_tables_of_pyarrow_and_their_files(form: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    names = [uuid.UUID(int=n).bytes for n in range(VIDEOS)]
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(names, pa.binary(16)))
    flat = pa.array((VECTORS * NORMS).ravel().astype(np.float16))
    videos = pa.table({"id": ids, "embedding": pa.FixedSizeListArray.from_arrays(flat, WIDTH)})
    texts = pa.table(
        {"video": pa.array([str(uuid.UUID(int=n)) for n in ABOUT]).dictionary_encode(), "vector": list(TEXTS)}
    )
    tables = {"texts": texts, "videos": videos}
    if form != "table":
        write = parquet.write_table if form == ".parquet" else feather.write_feather
        for name, table in tables.items():
            write(table, tmp_path / f"{name}{form}")
            tables[name] = tmp_path / f"{name}{form}"
    for _ in range(2):  # the second time it is known as the same
        report = import_vectors(VectorFiles(**tables), tmp_path / "cache", SPACE, progress=False)
    assert (report.texts, report.new_texts, report.videos) == (18, 0, VIDEOS)
    pairs = load_pairs(tmp_path / "cache")
    np.testing.assert_allclose(pairs.video, VECTORS, atol=2e-3)
    assert pairs.labels.tolist() == ABOUT.tolist()
