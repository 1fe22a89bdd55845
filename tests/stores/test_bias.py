"""Score bias: kept beside segments, taken from scores, kept up to date, taken away; in every kind of store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter import AsyncQdrantStore, BiasBank, MemoryStore, VideoStore, apply_bias, remove_bias
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores import biasing, ranking
from dits_adapter.stores.adopting import adopt_collection
from dits_adapter.stores.bias import BIAS
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant import _search
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import Hit, ReadRequest
from dits_adapter.stores.rows import SegmentRow, segment_id
from tests.stores.fakes import FakeEncoder, fake_space, unit, write_video
from tests.stores.places import PLACES, place

VIDEOS = 60


def rows(videos: range, width: int = 8) -> list[SegmentRow]:
    """Describe videos of one to three segments, some of them near to everything."""
    described = []
    for n in videos:
        rng = np.random.default_rng(n)
        video, segments = str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))), n % 3 + 1
        for at in range(segments):
            pull = 1.5 if n % 7 == 0 else 0.0
            vector = unit(rng.normal(size=width) + pull)
            described.append(
                SegmentRow(
                    segment_id(video, at, at + 1.0),
                    video,
                    f"/{n}.mp4",
                    float(at),
                    at + 1.0,
                    (at + 0.5,),
                    float(segments),
                    10.0,
                    "none",
                    1,
                    1,
                    segments if at == segments - 1 else None,
                    vector,
                    vector[None],
                )
            )
    return described


def bank(seed: int = 0, n: int = 40) -> BiasBank:
    space = fake_space()
    vectors = unit(np.random.default_rng([seed, 9]).normal(size=(n, 8)) + 0.8)
    return BiasBank(vectors, space, space.text.canaries)


def queries(n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, 8)) + 0.8).astype(np.float32)


@pytest.fixture(params=[kind for kind in PLACES if kind != "own store"])  # which keeps no bias
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VideoStore]:
    """Each kind of store in turn, with the same videos."""
    with place(request.param, request, tmp_path) as open_again:
        opened = open_again()
        opened.create(CollectionMetadata(space=fake_space()))
        opened.write(rows(range(VIDEOS)))
        yield opened


def reference(
    query: np.ndarray, described: list[SegmentRow], of: BiasBank, weight: float
) -> list[tuple[str, float]]:
    """Rank all videos by their best segment in float64: ids of segments and corrected scores, best first."""
    items = np.array([row.vector for row in described], np.float64)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    others = of.vectors.astype(np.float64)
    cosines = items @ others.T
    sharpness = 2.5 / cosines.std(axis=1).mean()
    bias = np.log(np.exp(sharpness * cosines).mean(axis=1)) / sharpness
    scores = items @ (query.astype(np.float64) / np.linalg.norm(query)) - weight * bias
    best: dict[str, tuple[str, float]] = {}
    for n in np.argsort(-scores):
        best.setdefault(described[n].video_id, (described[n].id, float(scores[n])))
    return list(best.values())


def require_ranked(hits: list[Hit], expected: list[tuple[str, float]]) -> None:
    assert [hit.id for hit in hits] == [id_ for id_, _ in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=2e-6)


def test_the_ranking_is_that_of_the_formula_over_all_segments(store: VideoStore) -> None:
    described = rows(range(VIDEOS))
    assert apply_bias(store, bank(), progress=False) == len(described)
    plain = store.search_batch(queries(8), bias=0.0)
    for query, hits in zip(queries(8), store.search_batch(queries(8)), strict=True):
        require_ranked(hits, reference(query, described, bank(), 0.5)[:10])
        require_ranked(store.search(query), [(str(hit.id), hit.score) for hit in hits])
    for query, hits in zip(queries(8), plain, strict=True):
        require_ranked(hits, reference(query, described, bank(), 0.0)[:10])
    assert [hits[0].id for hits in plain] != [hits[0].id for hits in store.search_batch(queries(8))]
    require_ranked(store.search(queries(1)[0], bias=0.2), reference(queries(1)[0], described, bank(), 0.2)[:10])


def test_candidates_of_several_shards_are_ordered_alike(qdrant_server: str) -> None:
    """Each shard has candidates of its own, so the server does not order those of all."""
    name = f"shards-{uuid.uuid4().hex}"
    with QdrantStore(qdrant_server, name) as sharded:
        sharded.create(CollectionMetadata(space=fake_space()), CollectionOptions(shards=2))
        sharded.write(described := rows(range(VIDEOS)))
        apply_bias(sharded, bank(), progress=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_search, "CANDIDATES", 1)
            for query in queries(8):
                assert sharded.search(query, limit=1)[0].id == reference(query, described, bank(), 0.0)[0][0]
        require_ranked(sharded.search(queries(1)[0]), reference(queries(1)[0], described, bank(), 0.5)[:10])


def test_a_hit_keeps_its_cosine_and_its_payload(store: VideoStore) -> None:
    apply_bias(store, bank(), weight=0.35, progress=False)
    query = queries(1)[0]
    vectors = {row.id: row.vector for row in rows(range(VIDEOS))}
    for hit in store.search(query, limit=20, per_video=2):
        assert hit.cosine == pytest.approx(float(vectors[str(hit.id)] @ query / np.linalg.norm(query)), abs=2e-6)
        assert hit.bias == pytest.approx(0.35 * hit.payload[BIAS])
        assert hit.path == hit.payload["path"]
        assert hit.timestamp is not None


def test_a_least_score_is_one_of_the_cosine(store: VideoStore) -> None:
    apply_bias(store, bank(), progress=False)
    query = queries(1)[0]
    least = float(np.median([hit.cosine for hit in store.search(query, limit=VIDEOS)]))
    hits = store.search(query, limit=VIDEOS, min_score=least)
    assert 0 < len(hits) < VIDEOS
    assert all(hit.cosine >= least for hit in hits)
    assert min(hit.score for hit in hits) < least


def test_pages_are_of_one_order_beyond_the_candidates(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_search, ranking):
        monkeypatch.setattr(module, "CANDIDATES", 16)
    apply_bias(store, bank(), progress=False)
    query = queries(1)[0]
    whole = [hit.id for hit in store.search(query, limit=VIDEOS + 5)]
    assert len(whole) == VIDEOS
    pages = [store.search(query, limit=7, offset=start) for start in range(0, VIDEOS, 7)]
    videos = [hit.video_id for page in pages for hit in page]
    assert len(set(videos)) == len(videos) == VIDEOS
    assert [hit.id for page in pages for hit in page] == whole
    for query, hits in zip(queries(3), store.search_batch(queries(3), limit=20), strict=True):
        require_ranked(store.search(query, limit=20), [(str(hit.id), hit.score) for hit in hits])


def test_rerank_orders_the_candidates_that_the_bias_chose(store: VideoStore) -> None:
    apply_bias(store, bank(), progress=False)
    query = queries(1)[0]
    chosen = {hit.video_id for hit in store.search(query, limit=12)}
    hits = store.search(query, limit=12, rerank="maxsim", candidates=12)
    assert {hit.video_id for hit in hits} == chosen
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.bias == 0 for hit in hits)
    assert hits[0].score == pytest.approx(
        max(float(row.vector @ query) for row in rows(range(VIDEOS)) if row.video_id in chosen)
        / np.linalg.norm(query),
        abs=1e-5,
    )


def test_applied_again_it_adds_those_that_lack_one(store: VideoStore) -> None:
    apply_bias(store, bank(), progress=False)
    record = store.metadata().bias  # type: ignore[union-attr]
    store.write(rows(range(VIDEOS, VIDEOS + 4)))
    query = queries(1)[0]
    late = [hit for hit in store.search(query, limit=99) if BIAS not in hit.payload]
    assert len(late) == 4
    assert all(hit.bias == pytest.approx(0.5 * record.mean) for hit in late)  # type: ignore[union-attr]
    vectors = {row.id: row.vector for row in rows(range(VIDEOS, VIDEOS + 4))}
    for hit in late:  # whoever ordered them took the mean from their scores as well
        assert hit.cosine == pytest.approx(float(vectors[str(hit.id)] @ query / np.linalg.norm(query)), abs=2e-6)
    assert apply_bias(store, bank(), progress=False) == len(rows(range(VIDEOS, VIDEOS + 4)))
    assert store.metadata().bias == record  # type: ignore[union-attr]
    assert apply_bias(store, bank(), weight=0.25, progress=False) == 0
    assert store.search(query)[0].bias == pytest.approx(0.25 * store.search(query)[0].payload[BIAS])


def test_interrupted_it_is_not_in_use_and_goes_on(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biasing, "_BATCH", 16)
    write, calls = store.write_biases, []

    def fail(biases: dict[str | int, float]) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(biases))
        write(biases)

    monkeypatch.setattr(store, "write_biases", fail)
    with pytest.raises(KeyboardInterrupt):
        apply_bias(store, bank(), progress=False)
    query = queries(1)[0]
    assert all(hit.bias == 0 for hit in store.search(query))
    with pytest.raises(StoreError, match="was interrupted"):
        store.search(query, bias=0.5)
    monkeypatch.setattr(store, "write_biases", write)
    described = rows(range(VIDEOS))
    assert apply_bias(store, bank(), progress=False) == len(described) - 32
    require_ranked(store.search(query), reference(query, described, bank(), 0.5)[:10])
    stored = [segment.payload[BIAS] for segment in store.read(ReadRequest())]
    assert store.metadata().bias.mean == pytest.approx(np.mean(stored))  # type: ignore[union-attr]


def test_another_bank_replaces_it_and_removal_leaves_nothing(store: VideoStore) -> None:
    described, query = rows(range(VIDEOS)), queries(1)[0]
    before = store.search(query)
    apply_bias(store, bank(), progress=False)
    assert apply_bias(store, bank(1), progress=False) == len(described)
    require_ranked(store.search(query), reference(query, described, bank(1), 0.5)[:10])
    assert remove_bias(store)
    assert not remove_bias(store)
    assert store.metadata().bias is None  # type: ignore[union-attr]
    assert all(BIAS not in segment.payload for segment in store.read(ReadRequest()))
    assert store.search(query) == before


def test_ingestion_gives_new_segments_theirs(store: VideoStore, tmp_path: Path) -> None:
    described = rows(range(VIDEOS))
    apply_bias(store, bank(), progress=False)
    for n in range(4):
        write_video(tmp_path / "new" / f"{n}.mp4", seed=n, segments=n + 1)
    write_video(tmp_path / "late" / "4.mp4", seed=4, segments=2)

    def stored(folder: str, of: BiasBank | None) -> str:
        encoder = FakeEncoder()
        return str(ingest(store, tmp_path / folder, encoder, progress=False, bias=of))  # type: ignore[arg-type]

    with pytest.raises(StoreError, match="is of another bank"):
        stored("new", bank(1))
    assert "no bias" not in stored("new", bank())
    sharpness = store.metadata().bias.sharpness  # type: ignore[union-attr]
    fresh = {s.id: s for s in store.read(ReadRequest(vectors=True)) if s.id not in {row.id for row in described}}
    assert len(fresh) == 10
    for segment in fresh.values():
        assert segment.vector is not None
        exponents = sharpness * (bank().vectors.astype(np.float64) @ segment.vector)
        assert segment.payload[BIAS] == pytest.approx(np.log(np.exp(exponents).mean()) / sharpness, abs=1e-5)
    assert "no bias  2 segments" in stored("late", None)
    remove_bias(store)
    with pytest.raises(InputError, match="has no score bias that new videos could be given"):
        stored("late", bank())


@pytest.mark.parametrize("kind", ["MemoryStore", "Qdrant memory"])
def test_a_copy_brings_it_and_is_searched_without_it_until_it_is_whole(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between places of Qdrant points are copied, and between others segments."""
    with place(kind, request, tmp_path) as first, place(kind, request, tmp_path) as second:
        source, copied = first(), second()
        source.create(CollectionMetadata(space=fake_space()))
        source.write(rows(range(VIDEOS)))
        copy_collection(source, copied, progress=False)
        for seed in range(2):
            apply_bias(source, bank(seed), progress=False)
            with monkeypatch.context() as stopped:
                stopped.setattr(copied, "write" if kind == "MemoryStore" else "write_points", _stop)
                with pytest.raises(KeyboardInterrupt):
                    copy_collection(source, copied, progress=False)
            metadata = copied.metadata()
            assert metadata is not None
            assert metadata.bias_in_use is None
            assert copied.search(queries(1)[0]) == copied.search(queries(1)[0], bias=0.0)
            assert copy_collection(source, copied, progress=False).written == source.count()
            assert copied.metadata() == source.metadata()
            assert copied.search(queries(1)[0]) == source.search(queries(1)[0])
        remove_bias(source)
        copy_collection(source, copied, progress=False)
        assert copied.metadata() == source.metadata()
        assert all(BIAS not in segment.payload for segment in copied.read(ReadRequest()))


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("store", ["MemoryStore"], indirect=True)
def test_what_cannot_be_is_refused(store: VideoStore) -> None:
    with pytest.raises(StoreError, match="has no score bias"):
        store.search(queries(1)[0], bias=0.5)
    with pytest.raises(InputError, match=r"is 2; it goes from 0"):
        store.search(queries(1)[0], bias=2)
    with pytest.raises(InputError, match=r"is nan; it goes"):
        apply_bias(store, bank(), weight=float("nan"))
    other = BiasBank(bank().vectors, fake_space(3), fake_space(3).text.canaries)
    with pytest.raises(SpaceMismatchError):
        apply_bias(store, other)
    empty = MemoryStore()
    empty.create(CollectionMetadata(space=fake_space()))
    with pytest.raises(InputError, match="has no segments"):
        apply_bias(empty, bank())


@pytest.mark.parametrize("video", ["clip", None])
def test_a_collection_of_another_program(video: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its points may lack the field of their video; without such a field each is a video."""
    monkeypatch.setattr(_search, "CANDIDATES", 8)
    client = QdrantClient(":memory:")
    client.create_collection("videos", vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE))
    vectors = unit(np.random.default_rng(0).normal(size=(40, 8)) + 0.5)
    points = [
        models.PointStruct(id=n, vector=row.tolist(), payload={"clip": f"{n % 9}"} if n % 4 else {})
        for n, row in enumerate(vectors)
    ]
    client.upsert("videos", points)
    store = QdrantStore(client, "videos", space=fake_space())
    adopt_collection(store, fake_space(), PointLayout(vector="", video=video))
    assert apply_bias(store, bank(), progress=False) == 40
    record = store.metadata().bias  # type: ignore[union-attr]
    query = queries(1)[0]
    scores = vectors @ query / np.linalg.norm(query) - 0.5 * np.array(bank().biases(vectors, record))  # type: ignore[arg-type]
    hits = store.search(query, limit=40)
    assert all(hit.score == pytest.approx(scores[int(hit.id)], abs=1e-5) for hit in hits)
    if video is None:
        assert sorted(int(hit.id) for hit in hits) == list(range(40))
    else:
        assert sorted(hit.video_id for hit in hits) == [str(n) for n in range(9)]


def test_a_copy_of_a_tenant_leaves_the_bias_of_the_others_as_it_is() -> None:
    """One of the same bank may be of another sharpness, by which the numbers of the others are not computed."""
    first, second = QdrantClient(":memory:"), QdrantClient(":memory:")
    source, copied, other = (
        QdrantStore(first, tenant="a"),
        QdrantStore(second, tenant="a"),
        QdrantStore(second, tenant="b"),
    )
    for store, videos in ((source, range(9)), (other, range(20, 40))):
        store.create(CollectionMetadata(space=fake_space(), tenants=True))
        store.write(rows(videos))
        apply_bias(store, bank(), progress=False)
    before = other.search(queries(1)[0])
    with pytest.raises(
        StoreError, match="has a score bias, of other tenants too, and the source has none or others"
    ):
        copy_collection(source, copied, progress=False)
    assert (other.search(queries(1)[0]), copied.count()) == (before, 0)
    source.set_bias(other.metadata().bias)  # type: ignore[union-attr]
    assert copy_collection(source, copied, progress=False).written == source.count()
    assert other.search(queries(1)[0]) == before


@pytest.mark.parametrize("store", ["Qdrant server"], indirect=True)
def test_a_search_on_asyncio_is_the_same(store: VideoStore, qdrant_server: str) -> None:
    apply_bias(store, bank(), progress=False)

    async def search() -> list[Hit]:
        async with AsyncQdrantStore(qdrant_server, store.name) as other:
            return await other.search(queries(1)[0])

    assert asyncio.run(search()) == store.search(queries(1)[0])


def test_an_adapter_is_known_by_what_it_makes_of_the_canary_texts() -> None:
    canaries = fake_space().text.probes
    record = bank().record(np.array([row.vector for row in rows(range(20))]))
    assert record.fits(3 * canaries)
    turned = unit(canaries + 0.3 * np.roll(canaries, 1, axis=1))
    assert not record.fits(turned)
