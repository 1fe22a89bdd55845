"""How a server or a folder keeps a collection, and what that costs in recall."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import models

from dits_adapter.cli import main
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.recall import EFS, measure_recall
from dits_adapter.stores.qdrant.store import POOLED, QdrantStore
from tests.stores.fakes import FakeEncoder, fake_space, write_video
from tests.stores.server import qdrant_client
from tests.waiting import wait_until

METADATA = CollectionMetadata(space=fake_space())

ALL = {
    "float16": True,
    "quantization": "scalar",
    "on_disk": True,
    "hnsw_m": 24,
    "hnsw_ef_construct": 64,
    "shards": 2,
    "replicas": 1,
    "write_consistency": 1,
}


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A folder or a server, and the name of a collection there."""
    if request.param == "folder":
        yield str(tmp_path / "store"), "videos"
        return
    url, name = request.getfixturevalue("qdrant_server"), f"options-{uuid.uuid4().hex}"
    yield url, name
    qdrant_client(url).delete_collection(name)


def kept_as(store: QdrantStore) -> CollectionOptions:
    params = store.client.get_collection(store.collection).config.params
    assert isinstance(params.vectors, dict)
    return CollectionOptions.of(params, params.vectors[POOLED])


@pytest.mark.parametrize("options", [{}, ALL, {"quantization": "binary"}])
def test_a_collection_is_kept_as_asked(place: tuple[str, str], options: dict) -> None:
    asked = CollectionOptions.model_validate(options)
    with QdrantStore(*place) as store:
        asked = asked if store.capabilities.remote else asked.model_copy(update={"shards": None})
        store.create(METADATA, options=asked)
        unsaid = {"shards"} if asked.shards is None else set()
        assert kept_as(store).model_dump(exclude=unsaid) == asked.model_dump(exclude=unsaid)
    with QdrantStore(*place) as store:
        assert kept_as(store).model_dump(exclude=unsaid) == asked.model_dump(exclude=unsaid)


def test_a_quantized_collection_is_filled_and_searched(place: tuple[str, str], tmp_path: Path) -> None:
    for seed in range(5):
        write_video(tmp_path / "videos" / f"{seed}.mp4", seed=seed)
    options = CollectionOptions(float16=True, quantization="scalar")
    with QdrantStore(*place) as store:
        ingest(store, tmp_path / "videos", FakeEncoder(), store_options=options, progress=False)  # type: ignore[arg-type]
        wanted = next(FakeEncoder().iter_segments([str(tmp_path / "videos" / "3.mp4")], on_error=print))
        for exact in (False, True):
            hit = store.search(wanted.vector, exact=exact)[0]
            assert hit.path == wanted.path
            assert hit.score == pytest.approx(1, abs=1e-2)


def test_other_options_than_those_it_has_are_refused(place: tuple[str, str]) -> None:
    with QdrantStore(*place) as store:
        store.create(METADATA, options=CollectionOptions(hnsw_m=8))
        store.create(METADATA, options=CollectionOptions(hnsw_m=8))
        store.create(METADATA)
        message = r"is there already, with hnsw_m=8 instead of 9, quantization=none instead of scalar"
        with pytest.raises(StoreError, match=message):
            store.create(METADATA, options=CollectionOptions(hnsw_m=9, quantization="scalar", float16=False))


def test_options_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="memory has none"):
        QdrantStore(":memory:").create(METADATA, options=CollectionOptions())
    with pytest.raises(InputError, match=r"one shard in one copy; shards=2, replicas=3 is for a server"):
        QdrantStore(tmp_path / "store").create(METADATA, options=CollectionOptions(shards=2, replicas=3))
    assert not (tmp_path / "store").exists()
    (tmp_path / "videos").mkdir()
    for given, answer in (("shards=0", "shards"), ("float=1", "float"), ("float16", "write NAME=VALUE")):
        assert main(["ingest", str(tmp_path / "videos"), "--store", str(tmp_path / "s"), "--option", given]) == 1
        assert answer in capsys.readouterr().err


def fill(store: QdrantStore, count: int, width: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    for start in range(0, count, 500):
        points = [
            models.PointStruct(id=start + i, vector={POOLED: vector.tolist()}, payload={})
            for i, vector in enumerate(vectors[start : start + 500])
        ]
        store.write_points(points)
    store.client.update_collection(
        store.collection,
        vectors_config={
            POOLED: models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(full_scan_threshold=10))
        },
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1, default_segment_number=1),
    )
    quiet = 0

    def stays_indexed() -> bool:
        """Tell whether it is for a while: segments are indexed one by one, then merged, and indexed anew."""
        nonlocal quiet
        state = store.client.get_collection(store.collection)
        done = state.status == "green" and (state.indexed_vectors_count or 0) >= count
        quiet = quiet + 1 if done else 0
        return quiet == 5

    wait_until(stays_indexed, 0.1)
    return vectors


def test_recall_against_a_slow_reference(place: tuple[str, str]) -> None:
    space = fake_space(width=64)
    with QdrantStore(*place) as store:
        store.create(
            CollectionMetadata(space=space),
            CollectionOptions(quantization="binary", hnsw_m=4, hnsw_ef_construct=4),
        )
        vectors = fill(store, 2000, 64)
        queries = np.random.default_rng(1).normal(size=(40, 64))
        rows = {row.search: row for row in measure_recall(store, queries)}
        names = [
            "exact",
            "index",
            *(f"index, ef {ef}" for ef in EFS),
            "index, not rescored",
            "index, full vectors",
        ]
        assert list(rows) == names
        assert rows["exact"].recall == 1
        assert rows["index, ef 16"].recall < rows["index, ef 512"].recall
        assert all(0 < row.p50 <= row.p99 for row in rows.values())

        rough = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=False))
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        shares = []
        for query in queries:
            wanted = set(np.argsort(-(units @ query))[:10].tolist())
            points = store.client.query_points(
                store.collection, query.tolist(), using=POOLED, search_params=rough, limit=10
            ).points
            shares.append(len(wanted & {point.id for point in points}) / 10)
        assert rows["index, not rescored"].recall == pytest.approx(np.mean(shares), abs=0.03)
        assert rows["index, not rescored"].recall < 0.9


def test_recall_of_what_has_none() -> None:
    with QdrantStore(":memory:") as store:
        store.create(METADATA)
        with pytest.raises(InputError, match="its recall is 1"):
            measure_recall(store, np.ones((1, 8)))
        with pytest.raises(InputError, match="no queries"):
            measure_recall(store, np.ones((0, 8)))


def test_the_recall_command(place: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dits_adapter import DITSQueryEncoder

    with QdrantStore(*place) as store:
        store.create(CollectionMetadata(space=DITSQueryEncoder.from_pretrained("demo-dits").space))
        fill(store, 500, 128)
    queries = tmp_path / "queries.txt"
    queries.write_text("a red circle\n\na blue star rises\n")
    command = ["recall", str(queries), "--store", place[0], "--collection", place[1]]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "plain: 2 queries, 500 segments" in printed
    assert "adapted: 2 queries, 500 segments" in printed
    assert printed.count("| exact ") == 2
    queries.write_bytes(b"\xff\xfe\x00")
    assert main(command) == 1
    assert "is damaged" in capsys.readouterr().err
