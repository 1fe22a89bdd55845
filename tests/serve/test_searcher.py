"""What the page shows is what the encoder and the store say, at every strength and number of steps."""

from __future__ import annotations

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter import BiasBank, DITSQueryEncoder, QdrantStore, apply_bias, fit_query_bank
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.errors import InputError
from dits_adapter.serve import _searcher as searcher_module
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.requests import VideoFilter
from dits_adapter.stores.rows import SegmentRow, video_id_of
from dits_adapter.vectors import unit
from tests.serve.conftest import CALIBRATION, QUERY, save_adapter
from tests.stores.server import qdrant_client


def found(results):
    return [(result.video_id, result.start) for result in results]


def row(n: int, vector: np.ndarray) -> SegmentRow:
    """A video of one segment with this vector."""
    name = video_id_of(str(n))
    return SegmentRow(
        id=name,
        video_id=name,
        path=f"/{n}.mp4",
        start=0.0,
        end=1.0,
        timestamps=(0.5,),
        duration=1.0,
        fps=10.0,
        decoder="none",
        size=1,
        mtime_ns=1,
        segments=1,
        vector=vector,
        frame_vectors=vector[None],
    )


@pytest.mark.parametrize("adapted", [False, True])
def test_a_score_bias_is_taken_from_the_queries_that_it_is_for(encoder, adapted):
    rng = np.random.default_rng(0)
    texts = encoder.encode_query([QUERY, "a dog", "blue"]) if adapted else encoder.encode_document([QUERY, "blue"])
    canaries = encoder.space.text.probes
    queries = unit(encoder.adapt(canaries)) if adapted else canaries
    with MemoryStore(space=encoder.space) as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write([row(n, unit(vector)) for n, vector in enumerate(rng.normal(size=(30, 32)))])
        apply_bias(store, BiasBank(unit(texts), encoder.space, tuple(map(tuple, queries.tolist()))))
        comparison = Searcher(store, encoder).compare(QUERY)
        for results, vector, biased in (
            (comparison.plain, encoder.encode_document(QUERY), not adapted),
            (comparison.adapted, encoder.encode_query(QUERY), adapted),
        ):
            hits = store.search(vector, bias=None if biased else 0.0)
            assert found(results) == [(hit.video_id, hit.start) for hit in hits]
            assert any(hit.bias for hit in hits) == biased
        chances = [None if adapted else CALIBRATION.probability(hit.score, videos=30) for hit in hits]
        assert [result.probability for result in comparison.adapted] == pytest.approx(chances)
        assert (comparison.probability_of_any is None) == adapted  # no calibration for the bias
        assert Searcher(store, encoder).about().calibrated == (not adapted)
        half = Searcher(store, encoder).compare(QUERY, CompareOptions(strength=0.5)).adapted
        assert [r.score for r in half] == pytest.approx(
            [h.score for h in store.search(halfway(encoder), bias=0.0)], abs=1e-5
        )


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_bank_beside_a_score_bias_is_searched_as_the_encoder_does(encoder, tiny_clip, strength, tmp_path):
    rng = np.random.default_rng(0)
    others = rng.normal(size=(20, 32)).astype(np.float32)
    bank = replace(encoder.artifact, adapter=fit_query_bank(others))
    banked = DITSQueryEncoder.from_pretrained(bank.save(tmp_path / "bank"), encoder=tiny_clip, strength=strength)
    with MemoryStore(space=encoder.space) as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write([row(n, unit(vector)) for n, vector in enumerate(rng.normal(size=(30, 32)))])
        apply_bias(store, BiasBank.of(bank))
        lighter, weight = banked.beside(store.metadata().bias)
        assert weight == pytest.approx(0.35)
        expected = fit_query_bank(others, weight=0.25).adapt(encoder.embed(QUERY)[None], strength=strength)
        np.testing.assert_allclose(lighter.encode_query(QUERY), expected[0], atol=1e-5)
        results = Searcher(store, banked).compare(QUERY).adapted
        hits = store.search(expected[0], bias=0.35)
        assert [r.score for r in results] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        assert all(result.probability is None for result in results)


def halfway(encoder):
    return DITSQueryEncoder.from_pretrained(encoder.name_or_path, strength=0.5).encode_query(QUERY)


def assert_as_encoder(searcher, encoder, **options):
    comparison = searcher.compare(QUERY, CompareOptions(**options))
    for results, vector in (
        (comparison.plain, encoder.encode_document(QUERY)),
        (comparison.adapted, encoder.encode_query(QUERY)),
    ):
        hits = searcher.store.search(vector)
        assert found(results) == [(hit.video_id, hit.start) for hit in hits]
        assert [r.score for r in results] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        assert [r.timestamp for r in results] == [hit.timestamp for hit in hits]
    return comparison


@pytest.mark.parametrize("options", [{}, {"strength": 0.4}, {"steps": 3}, {"steps": 3, "strength": 0.4}])
def test_rankings_are_those_of_the_encoder(searcher, adapter, options):
    comparison = assert_as_encoder(searcher, DITSQueryEncoder.from_pretrained(adapter, **options), **options)
    assert comparison.strength == options.get("strength", 1)
    assert comparison.steps == options.get("steps", 10)
    assert comparison.angle > 5
    assert found(comparison.plain) != found(comparison.adapted)


@pytest.mark.parametrize("options", [{"strength": 0}, {"steps": 0}])
def test_nothing_moves(searcher, options):
    comparison = searcher.compare(QUERY, CompareOptions(**options))
    assert comparison.plain == comparison.adapted
    assert comparison.angle == pytest.approx(0, abs=0.1)


def test_defaults_are_those_of_the_encoder(client, adapter):
    half = DITSQueryEncoder.from_pretrained(adapter, strength=0.5, steps=4)
    searcher = Searcher(QdrantStore(client, space=half.space), half)
    assert (searcher.about().strength, searcher.about().trained_steps, searcher.about().max_steps) == (0.5, 4, 10)
    assert_as_encoder(searcher, half)


def test_adapters_that_read_raw_embeddings_get_them(client, tiny_clip, tmp_path):
    encoder = DITSQueryEncoder.from_pretrained(save_adapter(tiny_clip, tmp_path / "raw", input="raw"))
    unit = encoder.adapt(encoder.encode_document(QUERY))
    assert not np.allclose(unit, encoder.encode_query(QUERY), atol=1e-3)  # else this could not fail
    assert_as_encoder(Searcher(QdrantStore(client, space=encoder.space), encoder), encoder)


def test_an_adapter_without_steps(client, encoder, tiny_clip, tmp_path):
    rng = np.random.default_rng(0)
    shift = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
    shutil.copytree(tiny_clip, tmp_path / "tiny-clip")
    linear = DITSQueryEncoder.from_pretrained(Artifact(shift, encoder.space).save(tmp_path / "shift"))
    searcher = Searcher(QdrantStore(client, space=linear.space), linear)
    comparison = assert_as_encoder(searcher, linear)
    assert comparison.steps is searcher.about().max_steps is None
    assert len(comparison.map.path) == 6
    assert comparison.map.path[-1] == pytest.approx(comparison.map.query, abs=1e-3)
    with pytest.raises(InputError, match="steps cannot be chosen: an adapter of kind affine has none"):
        searcher.compare(QUERY, CompareOptions(steps=3))


def test_the_map_is_the_pca_of_path_and_hits(searcher, encoder, adapter, client):
    comparison = searcher.compare(QUERY, CompareOptions(strength=0.5, limit=3))
    text = encoder.encode_document(QUERY)
    _, path = encoder.adapt(text, return_trajectory=True)
    path = path[:, 0] / np.linalg.norm(path[:, 0], axis=1, keepdims=True)
    query = DITSQueryEncoder.from_pretrained(adapter, strength=0.5).encode_query(QUERY)
    stored, _ = client.scroll("videos", limit=100, with_vectors=["video"])
    vectors = {(p.payload["video_id"], p.payload["start"]): p.vector["video"] for p in stored}
    hits = {key: vectors[key] for key in found(comparison.plain + comparison.adapted)}
    rows = np.vstack([text, path, query, *hits.values()]).astype(np.float64)
    centered = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    expected = u[:, :2] * s[:2]
    positions = {found([r])[0]: r.position for r in comparison.plain + comparison.adapted}
    drawn = np.array([*comparison.map.path, comparison.map.query, *(positions[key] for key in hits)])
    signs = np.sign((drawn * expected).sum(axis=0))
    np.testing.assert_allclose(drawn, expected * signs, atol=2e-3)
    assert comparison.map.explained_variance == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), abs=1e-3)
    assert len(comparison.map.path) == 12
    assert len(comparison.map.cloud) == len(stored) - len(hits)


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        (VideoFilter(words="long"), {"long.mp4"}),
        (VideoFilter(words="mp4 old"), {"old.mp4"}),
        (VideoFilter(words="nowhere"), set()),
        (VideoFilter(min_duration=5), {"long.mp4"}),
        (VideoFilter(max_duration=5), {*(f"clip-{n}.mp4" for n in range(6)), "old.mp4"}),
    ],
)
def test_filters(searcher, condition, names):
    comparison = searcher.compare(QUERY, CompareOptions(filter=condition))
    for results in (comparison.plain, comparison.adapted):
        assert {result.path.rsplit("/")[-1] for result in results} == names


def test_a_server_finds_and_draws_the_same(searcher, encoder, client, qdrant_server):
    collection = f"videos-{uuid.uuid4().hex}"
    server = qdrant_client(qdrant_server)
    store = QdrantStore(server, collection, space=encoder.space)
    try:
        store.create(CollectionMetadata(space=encoder.space, segment_seconds=2))
        stored, _ = client.scroll("videos", limit=100, with_vectors=True)
        points = [models.PointStruct(id=p.id, vector=p.vector, payload=p.payload) for p in stored]
        server.upsert(collection, points)
        remote = Searcher(store, encoder)
        for options in ({}, {"filter": VideoFilter(words="clip-1 mp4")}, {"limit": 1}):
            here, there = (side.compare(QUERY, CompareOptions(**options)) for side in (searcher, remote))
            for side in ("plain", "adapted"):
                assert found(getattr(there, side)) == found(getattr(here, side))
                for one, other in zip(getattr(there, side), getattr(here, side), strict=True):
                    assert one.position == pytest.approx(other.position, abs=2e-3)
            assert np.shape(there.map.cloud) == np.shape(here.map.cloud)
    finally:
        server.delete_collection(collection)


class TestProbabilities:
    def test_are_those_of_adapted_scores_among_all_videos(self, searcher):
        found = searcher.compare(QUERY)
        assert [hit.probability for hit in found.plain] == [None] * 8
        assert [hit.probability for hit in found.adapted] == [
            CALIBRATION.probability(hit.score, videos=8) for hit in found.adapted
        ]
        assert found.probability_of_any == CALIBRATION.probability_of_any(found.adapted[0].score, videos=8)
        assert searcher.about().calibrated

    @pytest.mark.parametrize("least", [0.1, 0.5, 0.75, 0.99])
    def test_a_least_one_leaves_out_what_is_below(self, searcher, least):
        everything = searcher.compare(QUERY, CompareOptions(per_video=4))
        likely = searcher.compare(QUERY, CompareOptions(per_video=4, min_probability=least))
        assert found(likely.adapted) == found(hit for hit in everything.adapted if hit.probability >= least)
        assert found(likely.plain) == found(everything.plain)

    def test_the_threshold_is_for_adapted_results_alone(self, encoder):
        plain, adapted = encoder.encode_document(QUERY), encoder.encode_query(QUERY)
        across = adapted - (adapted @ plain) * plain
        across /= np.linalg.norm(across)
        store = MemoryStore(space=encoder.space)
        store.create(CollectionMetadata(space=encoder.space))
        store.write([row(n, across) for n in range(3)])
        ends = [CALIBRATION.probability(float(score), videos=3) for score in (across @ plain, across @ adapted)]
        comparison = Searcher(store, encoder).compare(QUERY, CompareOptions(min_probability=np.mean(ends)))
        assert len(comparison.adapted) == len(comparison.plain) == 3
        assert max(result.score for result in comparison.plain) < CALIBRATION.score_of(np.mean(ends), videos=3)

    @pytest.mark.parametrize("options", [{"strength": 0.9}, {"steps": 9}, {"strength": 0}])
    def test_hold_for_the_adapter_as_it_was_calibrated(self, searcher, options):
        assert all(hit.probability is None for hit in searcher.compare(QUERY, CompareOptions(**options)).adapted)
        with pytest.raises(InputError, match="no probabilities are known"):
            searcher.compare(QUERY, CompareOptions(min_probability=0.5, **options))

    def test_videos_are_counted_every_few_seconds(self, encoder, client, monkeypatch):
        now = 1000.0
        monkeypatch.setattr(searcher_module, "time", SimpleNamespace(monotonic=lambda: now))
        mine = QdrantClient(":memory:")
        store = QdrantStore(mine, space=encoder.space)
        store.create(CollectionMetadata(space=encoder.space, segment_seconds=2))
        stored, _ = client.scroll("videos", limit=100, with_vectors=True)
        points = [models.PointStruct(id=p.id, vector=p.vector, payload=p.payload) for p in stored]
        last = {point.payload["video_id"]: point for point in points if "segments" in point.payload}
        few, more = list(last.values())[:3], list(last.values())[3:]
        mine.upsert("videos", few)
        counts = []
        count = store.count_videos
        monkeypatch.setattr(store, "count_videos", lambda: counts.append(1) or count())
        searcher = Searcher(store, encoder)
        searcher.load()

        def expected(found, videos):
            return [CALIBRATION.probability(hit.score, videos=videos) for hit in found]

        for passed, videos in ((0, 3), (2, 3), (4, 8), (2, 8)):
            now += passed
            found = searcher.compare(QUERY).adapted
            assert [hit.probability for hit in found] == expected(found, videos)
            mine.upsert("videos", more)
        assert len(counts) == 2

    def test_stay_unknown_where_the_encoder_has_none(self, client, adapter):
        encoder = DITSQueryEncoder.from_pretrained(adapter, steps=4)
        searcher = Searcher(QdrantStore(client, space=encoder.space), encoder)
        searcher.load()
        assert not searcher.about().calibrated
        assert all(hit.probability is None for hit in searcher.compare(QUERY).adapted)


def test_segments_of_a_video(searcher):
    comparison = searcher.compare(QUERY, CompareOptions(limit=1, per_video=2))
    assert len(set(found(comparison.adapted))) == 2
    assert len({result.video_id for result in comparison.adapted}) == 1


def test_somebody_elses_collection_shows_no_files(encoder):
    client = QdrantClient(":memory:")
    rng = np.random.default_rng(0)
    cosine = models.VectorParams(size=32, distance=models.Distance.COSINE)
    client.create_collection("mine", cosine)
    payload = {"path": "/etc/passwd", "video_id": "x", "start": 1.0}
    client.upsert(
        "mine", [models.PointStruct(id=n, vector=rng.normal(size=32).tolist(), payload=payload) for n in range(5)]
    )
    store = QdrantStore(client, "mine", space=encoder.space, layout=PointLayout(vector=""), trust_foreign=True)
    with pytest.warns(UserWarning, match="Only its width"):
        comparison = Searcher(store, encoder).compare(QUERY)
    assert len({result.video_id for result in comparison.adapted}) == 5
    assert len({result.position for result in comparison.adapted}) == 5
    assert all(result.video is result.frame is None for result in comparison.plain + comparison.adapted)


def test_an_empty_collection(encoder):
    client = QdrantClient(":memory:")
    QdrantStore(client).create(CollectionMetadata(space=encoder.space))
    searcher = Searcher(QdrantStore(client, space=encoder.space), encoder)
    comparison = searcher.compare(QUERY, CompareOptions(steps=0))
    assert comparison.plain == comparison.adapted == comparison.map.cloud == []


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("  ", {}, "text is empty"),
        ("x" * 1_000_000, {}, "text has 1,000,000 characters"),
        ("beach.mp4", {}, "name of a video file"),
        ("a dog", {"steps": 11}, "0 to 10"),
        ("a dog", {"strength": 1.5}, "strength is 1.5"),
        ("a dog", {"limit": 0}, "limit is 0"),
    ],
)
def test_what_is_refused(searcher, query, options, message):
    with pytest.raises(InputError, match=message):
        searcher.compare(query, CompareOptions(**options))


def test_threads_agree(searcher):
    queries = [f"scene {n}" for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(searcher.compare, queries))
    assert [found(one.adapted) for one in together] == [
        found(searcher.compare(query).adapted) for query in queries
    ]
