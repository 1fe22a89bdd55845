"""A collection of another program: described once, then searched by its name, with titles, addresses and times."""

from __future__ import annotations

import json
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter import BiasBank, DITSQueryEncoder, TimedText, apply_bias, attach_texts
from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores.adopting import adopt_collection
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant.store import QdrantStore
from tests.stores.conftest import Storage
from tests.stores.fakes import fake_space, write_video
from tests.stores.server import qdrant_client
from tests.stores.test_ingest import run

QUERY = np.array([1.0, 0.1, 0.5, 0, 0, 0, 0, 0], np.float32)
LAYOUT = PointLayout(
    vector="clip",
    video="film.id",
    title="film.name",
    path="url",
    start="from",
    end="to",
    texts=("film.name", "text"),
)


def films(client: Any, name: str, width: int = 8) -> None:
    """Two films in the words of another program, the first in two pieces; vectors along the axes."""
    vectors = {
        "clip": models.VectorParams(size=width, distance=models.Distance.COSINE),
        "many": models.VectorParams(
            size=width,
            distance=models.Distance.COSINE,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        ),
    }
    client.create_collection(name, vectors_config=vectors)
    points = [
        models.PointStruct(
            id=n + 1,
            vector={"clip": np.eye(width)[n].tolist()},
            payload={
                "film": {"id": 70 + n // 2, "name": ["A dog's life", "Rain"][n // 2]},
                "url": f"https://films.example/{n // 2}",
                "from": 10 * n,
                "to": 10 * n + 9.5,
                "text": "a caption",
            },
        )
        for n in range(3)
    ]
    client.upsert(name, points, wait=True)


@pytest.fixture
def foreign(storage: Storage) -> Storage:
    """A storage with the collection of another program, whose name is that of the storage."""
    first = storage.open(space=fake_space())
    if isinstance(storage.location, Path):
        first.create(CollectionMetadata(space=fake_space()))
        first.client.delete_collection(first.collection)
    films(first.client, storage.collection)
    return storage


def points_of(store: QdrantStore) -> list[Any]:
    return store.client.scroll(store.collection, limit=100, with_vectors=True)[0]


def test_described_once_it_is_searched_by_its_name(foreign: Storage, recwarn: pytest.WarningsRecorder) -> None:
    before = points_of(foreign.open())
    adopted = adopt_collection(foreign.open(), fake_space(), LAYOUT)
    assert adopted.layout == LAYOUT
    store = foreign.open(space=fake_space())
    hits = store.search(QUERY, limit=5)
    assert [(hit.video_id, hit.title, hit.path, hit.start, hit.end) for hit in hits] == [
        ("70", "A dog's life", "https://films.example/0", 0, 9.5),
        ("71", "Rain", "https://films.example/1", 20, 29.5),
    ]
    assert str(hits[0]).endswith("  A dog's life  0.0-9.5 s")
    assert [hit.start for hit in store.search(QUERY, per_video=2)] == [0, 10, 20]
    assert [[hit.title for hit in row] for row in store.search_batch([QUERY, -QUERY])] == [
        ["A dog's life", "Rain"],
        ["A dog's life", "Rain"],
    ]
    assert (store.count(), store.count_videos()) == (3, 2)
    assert points_of(store) == before
    assert not [warning for warning in recwarn if "taken to be" in str(warning.message)]
    with pytest.raises(SpaceMismatchError, match="fake-1"):
        foreign.open(space=fake_space(1)).search(QUERY)
    with pytest.raises(SpaceMismatchError, match="width 9 against 8"):
        foreign.open(space=fake_space(0, 9)).search(np.ones(9))


def test_it_can_be_described_anew(foreign: Storage) -> None:
    adopt_collection(foreign.open(), fake_space(), LAYOUT)
    adopt_collection(foreign.open(), fake_space(1), PointLayout(vector="clip", path="url"))
    hits = foreign.open(space=fake_space(1)).search(QUERY)
    assert [(hit.video_id, hit.title) for hit in hits] == [("1", None), ("3", None), ("2", None)]


def test_described_anew_it_keeps_its_texts_and_the_bias_of_the_same_vectors(foreign: Storage) -> None:
    adopt_collection(foreign.open(), fake_space(), LAYOUT)
    store = foreign.open(space=fake_space())
    apply_bias(
        store, BiasBank(np.eye(8, dtype=np.float32), fake_space(), fake_space().text.canaries), progress=False
    )
    attach_texts(store, [TimedText("70", "the captain explains the storm")], progress=False)
    before = store.metadata()
    assert before is not None
    assert (before.bias is None, before.texts is None) == (False, False)
    renamed = adopt_collection(foreign.open(), fake_space(), LAYOUT.model_copy(update={"title": "text"}))
    assert renamed == before.model_copy(update={"layout": renamed.layout})
    hits = foreign.open(space=fake_space()).search(QUERY, lanes=("seen", "said"), texts=["the captain"])
    assert (hits[0].title, hits[0].lanes["said"].rank) == ("a caption", 1)
    with pytest.warns(UserWarning, match="the score bias of .* was of other vectors"):
        other = adopt_collection(foreign.open(), fake_space(1), LAYOUT)
    assert (other.bias, other.texts) == (None, before.texts)


def test_nothing_is_written_into_it(foreign: Storage, tmp_path: Path) -> None:
    adopt_collection(foreign.open(), fake_space(), LAYOUT)
    write_video(tmp_path / "videos" / "a.mp4")
    with pytest.raises(StoreError, match=r"made by something else.*ingest into a collection of its own"):
        run(foreign.open(), tmp_path / "videos")
    with pytest.raises(StoreError, match="made by something else"):
        copy_collection(foreign.open(), QdrantStore(":memory:"), progress=False)
    assert len(points_of(foreign.open())) == 3


@pytest.mark.parametrize(
    ("layout", "space", "kind", "message"),
    [
        (PointLayout(vector="video"), fake_space(), InputError, "has no vector 'video'; it has 'clip', 'many'"),
        (
            PointLayout(vector=""),
            fake_space(),
            InputError,
            "'mine' has no unnamed vector; it has 'clip', 'many'; --vector names one",
        ),
        (PointLayout(vector="many"), fake_space(), InputError, "has many vectors a point"),
        (PointLayout(vector="clip"), fake_space(0, 9), SpaceMismatchError, "has width 8; the encoder has 9"),
        (
            PointLayout(vector="clip", title="tilte"),
            fake_space(),
            InputError,
            "none of the first 3 .* field 'tilte'; their fields are film.id, film.name, from, text, to, url",
        ),
        (PointLayout(vector="clip", texts=("nope",)), fake_space(), InputError, "payload field 'nope'"),
        (PointLayout(vector="clip", video="to"), fake_space(), InputError, "neither strings nor whole numbers"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    layout: PointLayout, space: Any, kind: type[Exception], message: str
) -> None:
    client = QdrantClient(":memory:")
    films(client, "mine")
    with pytest.raises(kind, match=message):
        adopt_collection(QdrantStore(client, "mine"), space, layout)
    assert QdrantStore(client, "mine").metadata() is None


@pytest.mark.parametrize("kind", [None, models.PayloadSchemaType.INTEGER, models.PayloadSchemaType.FLOAT])
def test_a_server_counts_videos_by_their_index_or_by_reading_them_once(
    qdrant_server: str, kind: models.PayloadSchemaType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"counted-{uuid.uuid4().hex}"
    client = qdrant_client(qdrant_server)
    films(client, name)
    try:
        if kind is not None:
            client.create_payload_index(name, "film.id", kind, wait=True)
        store = QdrantStore(client, name)
        adopt_collection(store, fake_space(), LAYOUT)
        read, scroll = [], client.scroll
        monkeypatch.setattr(client, "scroll", lambda *args, **options: read.append(1) or scroll(*args, **options))
        assert [store.count_videos() for _ in range(3)] == [2, 2, 2]
        assert len(read) == (0 if kind == models.PayloadSchemaType.INTEGER else 1)
        client.upsert(
            name,
            [
                models.PointStruct(id=8, vector={"clip": [1.0] * 8}, payload={"film": {"id": [72, 73]}}),
                models.PointStruct(
                    id=9, vector={"clip": [1.0] * 8}, payload={}
                ),  # of no video: no search finds it
                models.PointStruct(id=10, vector={}, payload={"film": {"id": 74}}),
            ],
            wait=True,
        )
        assert store.count_videos() == 4
    finally:
        client.delete_collection(name)


def test_more_videos_than_one_request_may_list_are_counted(qdrant_server: str) -> None:
    name = f"counted-{uuid.uuid4().hex}"
    client = qdrant_client(qdrant_server)
    films(client, name)
    try:
        client.create_payload_index(name, "film.id", models.PayloadSchemaType.INTEGER, wait=True)
        point = models.PointStruct(id=8, vector={"clip": [1.0] * 8}, payload={"film": {"id": 72}})
        client.upsert(name, [point], wait=True)
        store = QdrantStore(client, name)
        adopt_collection(store, fake_space(), LAYOUT)
        strict = models.StrictModeConfig(enabled=True, max_query_limit=2)
        client.update_collection(name, strict_mode_config=strict)
        assert QdrantStore(client, name).count_videos() == 3
    finally:
        client.delete_collection(name)


@pytest.mark.parametrize("length", [1.0, 2.0])
def test_dot_products_are_cosines_of_unit_vectors_alone(length: float) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("mine", vectors_config=models.VectorParams(size=8, distance=models.Distance.DOT))
    client.upsert(
        "mine", [models.PointStruct(id=n, vector=(length * np.eye(8)[n]).tolist(), payload={}) for n in range(3)]
    )
    layout, unit = PointLayout(vector=""), length == 1
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trusted = QdrantStore(client, "mine", space=fake_space(), layout=layout, trust_foreign=True)
        hits = trusted.search(3 * QUERY, limit=1)
        adopted = adopt_collection(QdrantStore(client, "mine"), fake_space(), layout)
        store = QdrantStore(client, "mine", space=fake_space())
        assert store.search(3 * QUERY, limit=1) == hits
    assert hits[0].id == 0
    assert hits[0].score == pytest.approx(length / np.linalg.norm(QUERY))
    assert (adopted.cosine, trusted.cosine, store.cosine) == (unit, unit, unit)
    told = [str(warning.message) for warning in said if "are no cosines" in str(warning.message)]
    assert len(told) == (0 if unit else 2)  # trusted, and adopted
    assert all("probabilities are not known" in message for message in told)


def test_one_of_ours_is_described_already() -> None:
    store = QdrantStore(":memory:")
    store.create(CollectionMetadata(space=fake_space()))
    with pytest.raises(StoreError, match="was made by dits_adapter"):
        adopt_collection(store, fake_space(), PointLayout())
    with pytest.raises(StoreError, match="has no collection 'other'"):
        adopt_collection(QdrantStore(store.client, "other"), fake_space(), PointLayout())


def test_the_command(qdrant_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"adopted-{uuid.uuid4().hex}"
    client = qdrant_client(qdrant_server)
    films(client, name, width=DITSQueryEncoder.from_pretrained("demo-dits").space.video.width)
    where = ["--store", qdrant_server, "--collection", name]
    fields = ["--vector", "clip", "--video-field", "film.id", "--title-field", "film.name", "--path-field", "url"]
    try:
        assert main(["search", "a red circle", *where]) == 1
        assert "dits-adapter adopt" in capsys.readouterr().err
        assert main(["adopt", *where, "--encoder", "demo-clip", *fields]) == 0
        advice = f"search TEXT --adapter demo-clip --store {qdrant_server} --collection {name}"
        assert advice in capsys.readouterr().out
        assert main(["search", "a red circle", *where, "--json", "--limit", "1"]) == 0
        (hit,) = json.loads(capsys.readouterr().out)["hits"]
        assert hit["title"] in ("A dog's life", "Rain")
        assert main(["search", "a red circle", *where]) == 0
        printed = capsys.readouterr().out
        assert "A dog's life" in printed
        assert "Rain" in printed
    finally:
        client.delete_collection(name)


def test_a_store_whose_collections_are_ours_alone_is_not_adopted() -> None:
    with pytest.raises(InputError, match="a collection in a MemoryStore is made by this package alone"):
        adopt_collection(MemoryStore(), fake_space(), PointLayout())
