"""Search of what is said, beside what is seen: texts beside segments, by BM25, fused by rank; in every store."""

from __future__ import annotations

import asyncio
import math
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from dits_adapter import AsyncQdrantStore, MemoryStore, VideoStore
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores import attaching
from dits_adapter.stores._lanes import fuse
from dits_adapter.stores._table import SEGMENTS
from dits_adapter.stores._terms import terms_of
from dits_adapter.stores.adopting import adopt_collection
from dits_adapter.stores.attaching import TimedText, attach_texts, remove_texts
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest, VideoFilter
from dits_adapter.stores.text_lane import SAID, TextLane, best_line
from tests.stores.fakes import FakeEncoder, fake_space, write_video
from tests.stores.places import PLACES, place
from tests.stores.test_bias import queries, rows

VIDEOS = 24
BOTH = ("seen", "said")
WORDS = ["sail", "wind", "harbor", "rope", "anchor", "wave", "storm", "mast", "deck", "captain", "tide", "gull"]


def said(videos: range = range(VIDEOS)) -> list[TimedText]:
    """Texts of one to three seconds' segments of two videos in three, of differing lengths."""
    texts = []
    for n in videos:
        rng = np.random.default_rng([n, 1])
        for at in range(n % 3 + 1 if n % 3 != 2 else 0):
            words = " ".join(rng.choice(WORDS, size=rng.integers(2, 9)))
            texts.append(TimedText(f"/{n}.mp4", f"The {words}s!", at + 0.2, at + 0.8))
    return texts


def stored(store: VideoStore) -> dict[str | int, str]:
    return {s.id: s.payload[SAID] for s in store.read(ReadRequest()) if s.payload.get(SAID)}


@pytest.fixture(scope="module", params=[kind for kind in PLACES if kind != "own store"])  # which keeps no texts
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VideoStore, list[Hit]]]:
    """Each kind of store in turn, with the same videos and texts, and what it found before it had texts."""
    with place(request.param, request, tmp_path_factory.mktemp("lanes")) as open_again:
        opened = open_again()
        opened.create(CollectionMetadata(space=fake_space()))
        opened.write(rows(range(VIDEOS)))
        before = opened.search(queries(1)[0], per_video=2)
        assert attach_texts(opened, said(), progress=False).written == len(said())
        yield opened, before


@pytest.fixture
def store(filled: tuple[VideoStore, list[Hit]]) -> VideoStore:
    """The store alone, whose texts stay as they are."""
    return filled[0]


@pytest.fixture(params=["MemoryStore", "Qdrant memory"])
def silent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VideoStore]:
    """The same videos without texts, in memory: texts are matched alike for all stores."""
    with place(request.param, request, tmp_path) as open_again:
        opened = open_again()
        opened.create(CollectionMetadata(space=fake_space()))
        opened.write(rows(range(VIDEOS)))
        yield opened


def reference(query: str, texts: dict[str | int, str]) -> dict[str | int, float]:
    """BM25 of segments in float64, term by term; those without a term of the query are left out."""
    counts = {id_: Counter(terms_of(text, "english")) for id_, text in texts.items()}
    average = sum(sum(of.values()) for of in counts.values()) / len(counts)
    scores: dict[str | int, float] = {}
    for term in set(terms_of(query, "english")):
        having = sum(term in of for of in counts.values())
        idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
        for id_, of in counts.items():
            if f := of[term]:
                norm = 1.2 * (0.25 + 0.75 * sum(of.values()) / average)
                scores[id_] = scores.get(id_, 0.0) + idf * f * 2.2 / (f + norm)
    return scores


def information(texts: dict[str | int, str]) -> float:
    """Mean idf of all terms, each as often as it occurs, in float64."""
    terms = [terms_of(text, "english") for text in texts.values()]
    having = Counter(term for of in terms for term in set(of))
    idf = {term: math.log(1 + (len(terms) - n + 0.5) / (n + 0.5)) for term, n in having.items()}
    every = [idf[term] for of in terms for term in of]
    return sum(every) / len(every)


def test_bm25_is_that_of_the_formula_in_every_store(store: VideoStore) -> None:
    texts, videos = stored(store), {row.id: row.video_id for row in rows(range(VIDEOS))}
    assert len(texts) == len(said())
    asked = ["a captain in the STORM", "anchors", "mast, rope; mast"]
    answers = store.search_batch(queries(3), texts=asked, lanes=("said",), limit=VIDEOS)
    for query, hits in zip(asked, answers, strict=True):
        best: dict[str, float] = {}
        for id_, score in reference(query, texts).items():
            best[videos[str(id_)]] = max(score, best.get(videos[str(id_)], 0.0))
        assert len(best) > 3
        assert {hit.video_id: hit.lanes["said"].score for hit in hits} == pytest.approx(best, rel=1e-5)
        scores = [hit.lanes["said"].score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert [hit.lanes["said"].rank for hit in hits] == list(range(1, len(hits) + 1))


def test_lanes_are_fused_by_the_ranks_of_videos(store: VideoStore) -> None:
    query, text = queries(1)[0], "storm over the harbor"
    seen = [hit.video_id for hit in store.search(query, limit=100)]
    heard = store.search(query, limit=100, lanes=("said",), texts=[text])
    expected = {video: 1 / (6 + seen.index(video)) for video in seen}
    half = 0.5 * 4 * information(stored(store))
    for rank, hit in enumerate(heard):
        expected[hit.video_id] += hit.lanes["said"].score / half / (6 + rank)
    hits = store.search(query, lanes=BOTH, texts=[text], limit=VIDEOS)
    assert {hit.video_id: hit.score for hit in hits} == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert hit.lanes["seen"].rank == seen.index(hit.video_id) + 1
        assert ("said" in hit.lanes) == (hit.video_id in {other.video_id for other in heard})
        assert hit.timestamp is not None
        assert hit.path == hit.payload["path"]
    pages = [store.search(query, lanes=BOTH, texts=[text], limit=5, offset=n) for n in range(0, VIDEOS, 5)]
    assert [hit.id for page in pages for hit in page] == [hit.id for hit in hits]
    several = store.search(query, lanes=BOTH, texts=[text], limit=VIDEOS, per_video=3)
    assert sorted(str(hit.id) for hit in several) == sorted(row.id for row in rows(range(VIDEOS)))
    assert list(dict.fromkeys(hit.video_id for hit in several)) == [hit.video_id for hit in hits]


def test_filters_hold_in_both_lanes(store: VideoStore) -> None:
    hits = store.search(queries(1)[0], lanes=BOTH, texts=["the"], filter=VideoFilter(words="7"), limit=VIDEOS)
    assert [(hit.path, set(hit.lanes)) for hit in hits] == [("/7.mp4", {"seen", "said"})]


def test_texts_go_to_the_segments_of_their_time_and_are_replaced(silent: VideoStore) -> None:
    texts = [
        TimedText("2.mp4", "of all"),
        TimedText("2.mp4", "from the\tfirst into the second", 0.5, 1.5),
        TimedText("2.mp4", "after the end", 9.0, 10.0),
        TimedText("gone.mp4", "nowhere"),
    ]
    report = attach_texts(silent, texts, progress=False)
    of_two = silent.read(ReadRequest(field="path", values=["/2.mp4"]))
    by_start = {segment.payload["start"]: segment.payload.get(SAID) for segment in of_two}
    both = "of all\nfrom the first into the second"
    assert by_start == {0.0: both, 1.0: both, 2.0: "of all"}
    assert report.missing == ["gone.mp4"]
    assert report.outside == {"2.mp4": 1}
    assert "gone.mp4" in str(report)
    record = silent.metadata().texts  # type: ignore[union-attr]
    again = attach_texts(silent, texts, progress=False)
    assert (again.written, again.unchanged) == (0, 3)
    assert silent.metadata().texts == record  # type: ignore[union-attr]
    other = attach_texts(silent, [TimedText("2.mp4", "only the third", 2.2, 2.4)], progress=False)
    assert (other.written, other.removed) == (1, 2)
    assert list(stored(silent).values()) == ["only the third"]
    hits = silent.search(queries(1)[0], lanes=("said",), texts=["second third"])
    assert [hit.payload[SAID] for hit in hits] == ["only the third"]
    assert silent.metadata().texts.revision != record.revision  # type: ignore[union-attr]


def test_interrupted_it_goes_on(silent: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "_BATCH", 8)
    write, calls = silent.write_texts, []

    def fail(texts: dict[str | int, str | None]) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(texts))
        write(texts)

    monkeypatch.setattr(silent, "write_texts", fail)
    with pytest.raises(KeyboardInterrupt):
        attach_texts(silent, said(), progress=False)
    monkeypatch.setattr(silent, "write_texts", write)
    report = attach_texts(silent, said(), progress=False)
    assert (report.written, report.unchanged) == (len(said()) - 16, 16)
    hits = silent.search(queries(1)[0], lanes=("said",), texts=["captain"], limit=VIDEOS)
    assert {hit.id for hit in hits} <= reference("captain", stored(silent)).keys()


@pytest.mark.parametrize("silent", ["MemoryStore"], indirect=True)
def test_interrupted_at_its_end_it_is_finished_for_those_who_search_already(
    silent: VideoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach_texts(silent, [TimedText("0.mp4", "storm"), TimedText("1.mp4", "calm")], progress=False)
    assert len(silent.search(queries(1)[0], lanes=("said",), texts=["storm"])) == 1  # which makes an index
    set_texts = silent.set_texts

    def fail(lane: TextLane | None) -> None:
        if lane is not None and lane.revision:
            raise KeyboardInterrupt
        set_texts(lane)

    changed = [TimedText("0.mp4", "storm"), TimedText("1.mp4", "a storm, too")]
    monkeypatch.setattr(silent, "set_texts", fail)
    with pytest.raises(KeyboardInterrupt):
        attach_texts(silent, changed, progress=False)
    monkeypatch.setattr(silent, "set_texts", set_texts)
    assert attach_texts(silent, changed, progress=False).written == 0
    assert len(silent.search(queries(1)[0], lanes=("said",), texts=["storm"])) == 2


def test_ingestion_says_that_new_videos_have_no_texts(tmp_path: Path) -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    for n in range(3):
        write_video(tmp_path / f"{n}.mp4", seed=n, segments=n + 1)

    def ingested() -> str:
        return str(ingest(store, tmp_path, encoder, progress=False))  # type: ignore[arg-type]

    assert "no texts" not in ingested()
    attach_texts(store, [TimedText("0.mp4", "storm")], progress=False)
    assert "no texts" not in ingested()  # nothing is new
    write_video(tmp_path / "2.mp4", seed=9, segments=2)  # stored anew, without what was said in it
    write_video(tmp_path / "3.mp4", seed=3, segments=3)
    assert (
        "no texts 5 segments: searches of what is said do not find them until `dits-adapter texts`" in ingested()
    )
    remove_texts(store)
    write_video(tmp_path / "4.mp4", seed=4, segments=1)
    assert "no texts" not in ingested()


@pytest.mark.parametrize("filled", ["Qdrant folder", "LanceDB"], indirect=True)
def test_texts_travel_with_a_copy(store: VideoStore) -> None:
    other: VideoStore = MemoryStore()
    copy_collection(store, other, progress=False)

    def heard(by: VideoStore) -> dict[str, float]:
        hits = by.search(queries(1)[0], lanes=("said",), texts=["storm in the harbor"], limit=VIDEOS)
        return {hit.video_id: hit.lanes["said"].score for hit in hits}

    assert heard(other) == pytest.approx(heard(store), rel=1e-5)
    assert stored(other) == stored(store)
    attach_texts(other, [TimedText("/0.mp4", "harbor")], progress=False)
    copy_collection(store, other, progress=False)  # which brings what has changed since
    assert stored(other) == stored(store)
    assert heard(other) == pytest.approx(heard(store), rel=1e-5)
    if isinstance(store, QdrantStore):
        with QdrantStore(QdrantClient(":memory:"), "copy") as copied:
            copy_collection(store, copied, progress=False)
            assert heard(copied) == pytest.approx(heard(store), rel=1e-5)


@pytest.fixture
def videos() -> MemoryStore:
    """Videos of two folders in memory: /a/0.mp4, /a/1.mp4 and /b/1.mp4."""
    store = MemoryStore()
    store.create(CollectionMetadata(space=fake_space()))
    of = dict(enumerate(("/a/0.mp4", "/a/1.mp4", "/b/1.mp4")))
    store.write([replace(row, path=of[int(row.path[1:-4])]) for row in rows(range(3))])
    return store


def by_path(store: VideoStore) -> dict[str, str]:
    return {s.payload["path"]: s.payload[SAID] for s in store.read(ReadRequest()) if s.payload.get(SAID)}


def test_a_video_has_the_texts_of_all_its_names(videos: MemoryStore) -> None:
    """As files of pairs name it that were made in several folders."""
    (record,) = [record for record in videos.records() if record.path == "/a/0.mp4"]
    for names in permutations(("/a/0.mp4", "a/0.mp4", "0.mp4", "./0.mp4", record.video_id)):
        texts = [TimedText(name, name, at) for at, name in enumerate(names)]
        report = attach_texts(videos, texts, progress=False)
        assert not report.missing
        assert by_path(videos) == {"/a/0.mp4": "\n".join(names)}


def test_a_short_name_is_of_the_video_that_has_no_longer_one(videos: MemoryStore) -> None:
    texts = [TimedText("b/1.mp4", "storm"), TimedText("1.mp4", "calm")]
    assert not attach_texts(videos, texts, progress=False).missing
    assert by_path(videos) == {"/b/1.mp4": "storm", "/a/1.mp4": "calm"}
    with pytest.raises(InputError, match=r"both /a/1\.mp4 and /b/1\.mp4 are stored and end in '1\.mp4'"):
        attach_texts(videos, [*texts, TimedText("a/1.mp4", "sea")], progress=False)
    assert by_path(videos) == {"/b/1.mp4": "storm", "/a/1.mp4": "calm"}


@pytest.mark.parametrize("kind", ["LanceDB", "pgvector"])
def test_a_table_of_an_earlier_version_takes_segments_and_no_texts(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place(kind, request, tmp_path) as open_again:
        store = open_again()
        with monkeypatch.context() as earlier:
            earlier.delitem(SEGMENTS, SAID)
            store.create(CollectionMetadata(space=fake_space()))
        store.write(rows(range(4)))
        with pytest.raises(StoreError, match=r"by an earlier version, without the column 'said'\. Copy it"):
            attach_texts(store, said(range(4)), progress=False)
        assert not remove_texts(store)
        copied = MemoryStore()
        copy_collection(store, copied, progress=False)
        assert attach_texts(copied, said(range(4)), progress=False).written


@pytest.mark.parametrize("filled", ["Qdrant server"], indirect=True)
def test_a_search_on_asyncio_is_the_same(store: VideoStore, qdrant_server: str) -> None:
    request = SearchRequest(lanes=BOTH, texts=("storm in the harbor",), limit=VIDEOS)

    async def search() -> list[Hit]:
        async with AsyncQdrantStore(qdrant_server, store.name) as other:
            return await other.search(queries(1)[0], request)

    assert asyncio.run(search()) == store.search(queries(1)[0], request)


def test_what_is_seen_alone_is_searched_as_before(filled: tuple[VideoStore, list[Hit]]) -> None:
    """The last test of these stores: their texts are changed, and taken away."""
    store, before = filled
    query = queries(1)[0]
    after = store.search(query, per_video=2)
    assert [replace(hit, payload={}) for hit in after] == [replace(hit, payload={}) for hit in before]
    assert all(not hit.lanes for hit in after)
    report = attach_texts(store, [TimedText("/1.mp4", "bells", 0.0, 0.5)], progress=False)
    assert (report.written, report.removed) == (1, 1)
    heard = store.search_batch(queries(2), lanes=("said",), texts=["bells", "the"], limit=VIDEOS, per_video=3)
    assert [hit.path for hit in heard[0]] == ["/1.mp4"]
    assert len(heard[1]) == len(said()) - 2
    assert remove_texts(store)
    assert not remove_texts(store)
    assert store.search(query, per_video=2) == before
    assert not stored(store)
    with pytest.raises(StoreError, match=r"has no texts to search .*dits-adapter texts"):
        store.search(query, lanes=BOTH, texts=["storm"])


@pytest.mark.parametrize("kind", ["Qdrant memory", "Qdrant folder", "LanceDB"])
def test_tenants_hear_their_own_and_nothing_of_others(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Neither a text nor, by its idf, how many texts of others have a word."""
    with place(kind, request, tmp_path) as open_again:

        def attach(tenant: str, videos: int) -> None:
            opened = open_again(tenant=tenant)
            opened.create(CollectionMetadata(space=fake_space(), tenants=True))
            opened.write([replace(r, id=str(uuid.uuid5(uuid.UUID(r.id), tenant))) for r in rows(range(6))])
            texts = [TimedText(f"{n}.mp4", f"storm of {tenant}") for n in range(videos)]
            attach_texts(opened, texts, progress=False)
            opened.close()

        def heard() -> dict[str | int, float]:
            with open_again(tenant="acme") as opened:
                hits = opened.search(queries(1)[0], lanes=("said",), texts=["storm umbrella"], per_video=9)
                assert {hit.payload[SAID] for hit in hits} == {"storm of acme"}
                return {hit.id: hit.lanes["said"].score for hit in hits}

        attach("acme", 3)
        alone = heard()
        assert len(alone) == 6
        attach("umbrella", 6)
        assert heard() == pytest.approx(alone, rel=1e-6)


def test_a_server_that_weighs_words_by_the_texts_of_all_tenants_is_told_of(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with place("Qdrant server", request, tmp_path) as open_again:
        store = open_again(tenant="acme")
        store.create(CollectionMetadata(space=fake_space(), tenants=True))
        store.write(rows(range(3)))
        old = store.client.info().version < "1.19"
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            attach_texts(store, said(range(3)), progress=False)
        assert ["hint at how common a word is" in str(each.message) for each in warned] == [True] * old
        assert store.search(queries(1)[0], lanes=("said",), texts=["the"], limit=9)


def test_a_copy_of_a_tenant_takes_nothing_from_the_others(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    metadata = CollectionMetadata(space=fake_space(), tenants=True)
    with place("Qdrant memory", request, tmp_path) as first, place("Qdrant memory", request, tmp_path) as second:
        source, copied, other = first(tenant="acme"), second(tenant="acme"), second(tenant="umbrella")
        for store in (source, other):
            store.create(metadata)
            store.write([replace(r, id=str(uuid.uuid4())) for r in rows(range(6))])
        attach_texts(other, said(range(6)), progress=False)
        before = stored(other)
        with pytest.raises(StoreError, match="has texts, of other tenants too"):
            copy_collection(source, copied, progress=False)
        attach_texts(source, said(range(3)), language="german", progress=False)
        with pytest.raises(StoreError, match="texts, of other tenants too, and the source has none or others"):
            copy_collection(source, copied, progress=False)
        assert stored(other) == before != {}
        assert other.metadata().texts.language == "english"
        remove_texts(source)
        attach_texts(source, said(range(3)), progress=False)
        copy_collection(source, copied, progress=False)
        assert (stored(other), stored(copied)) == (before, stored(source))


def test_an_index_that_was_made_during_a_copy_is_made_anew_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source, copied = MemoryStore("source"), MemoryStore("copied")
    source.create(CollectionMetadata(space=fake_space()))
    source.write(rows(range(VIDEOS)))
    attach_texts(source, said(), progress=False)
    ask = {"texts": ["captain"], "lanes": ("said",), "limit": VIDEOS}
    write = copied.write_texts

    def searched_before(texts: Mapping[str | int, str | None]) -> None:
        assert copied.search(queries(1)[0], **ask) == []
        write(texts)

    monkeypatch.setattr(copied, "write_texts", searched_before)
    copy_collection(source, copied, progress=False)
    found = copied.search(queries(1)[0], **ask)
    assert [hit.id for hit in found] == [hit.id for hit in source.search(queries(1)[0], **ask)] != []
    assert copied.metadata() == source.metadata()


@pytest.mark.parametrize("video", ["clip", None])
def test_a_qdrant_collection_of_another_program_is_ranked_here(video: str | None) -> None:
    """Its points can get no sparse vector afterwards."""
    client = QdrantClient(":memory:")
    client.create_collection("videos", vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).normal(size=(12, 8))
    client.upsert(
        "videos",
        [
            models.PointStruct(id=n, vector=row.tolist(), payload={"clip": [f"{n % 4}"], "path": f"/{n}.mp4"})
            for n, row in enumerate(vectors)
        ],
    )
    store = QdrantStore(client, "videos", space=fake_space())
    adopt_collection(store, fake_space(), PointLayout(vector="", video=video))
    texts = [TimedText("1.mp4", "a storm"), TimedText("2.mp4", "storms and storms"), TimedText("5.mp4", "calm")]
    attach_texts(store, texts, progress=False)
    hits = store.search(queries(1)[0], lanes=("said",), texts=["storm"])
    assert [hit.id for hit in hits] == [2, 1]
    assert [hit.video_id for hit in hits] == (["2", "1"])
    assert len(store.search(queries(1)[0], lanes=BOTH, texts=["storm"], limit=20)) == (4 if video else 12)
    with pytest.raises(StoreError, match=r"without the sparse vector .* leave out the filter"):
        store.search(queries(1)[0], lanes=BOTH, texts=["storm"], filter=models.Filter())


def test_a_copy_of_an_earlier_collection_has_the_vectors_of_its_texts_and_one_to_it_does_without() -> None:
    client = QdrantClient(":memory:")
    with QdrantStore(client, "new") as made, QdrantStore(client, "old") as old:
        made.create(CollectionMetadata(space=fake_space()))
        config = client.get_collection("new").config
        for name in ("old", "back"):
            client.create_collection(name, config.params.vectors, metadata=config.metadata)
        old.write(rows(range(VIDEOS)))
        attach_texts(old, said(), progress=False)
        with QdrantStore(QdrantClient(":memory:"), "copy") as copied:
            copy_collection(old, copied, progress=False)
            back = QdrantStore(client, "back")
            copy_collection(copied, back, progress=False)
            for store in (old, copied, back):
                hits = store.search(queries(1)[0], lanes=("said",), texts=["storm"], limit=VIDEOS)
                scores = {hit.video_id: hit.lanes["said"].score for hit in hits}
                expected = reference("storm", stored(old))
                videos = {row.id: row.video_id for row in rows(range(VIDEOS))}
                best = {videos[str(id_)]: 0.0 for id_ in expected}
                for id_, score in expected.items():
                    best[videos[str(id_)]] = max(best[videos[str(id_)]], score)
                assert scores == pytest.approx(best, rel=1e-5)


def test_of_a_long_video_the_segment_that_both_lanes_found_comes_first() -> None:
    def hit(id_: int, video: str) -> Hit:
        return Hit.of(id_, {}, 0.5, video_id=video)

    seen = [hit(1, "a"), hit(2, "a"), hit(3, "b")]
    heard = [hit(4, "b"), hit(3, "b"), hit(5, "c"), hit(2, "a")]
    hits = fuse({"seen": seen, "said": heard}, 0.5, SearchRequest(lanes=BOTH, per_video=3))
    assert [h.id for h in hits] == [3, 4, 2, 1, 5]
    assert [h.score for h in hits] == pytest.approx([1 / 7 + 1 / 6] * 2 + [1 / 6 + 1 / 8] * 2 + [1 / 7])
    twice = fuse({"seen": seen, "said": heard}, 0.25, SearchRequest(lanes=BOTH))
    assert [h.score for h in twice] == pytest.approx([1 / 7 + 2 / 6, 1 / 6 + 2 / 8, 2 / 7])


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Dogs, running — DOG'S", ["dog", "run", "dog", "s"]),
        ("ﬁlm Ｆilm cafe\u0301 café", ["film", "film", "café", "café"]),
        ("東京タワー 2024年", ["東京", "京タ", "タワ", "ワー", "2024", "年"]),
        ("हिन्दी", ["हिन्दी"]),
        ("!? …", []),
    ],
)
def test_terms_of_texts(text: str, terms: list[str]) -> None:
    assert terms_of(text, "english") == terms


def test_a_language_has_its_endings() -> None:
    assert terms_of("Häuser und Hauses", "german")[0] == terms_of("haus", "german")[0]
    assert terms_of("dogs", None) == ["dogs"]


def test_the_line_that_answers_is_shown() -> None:
    assert best_line("a boat\nthe dogs run\na dog", "dogs running", "english") == "the dogs run"


def test_a_record_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="average"):
        TextLane(language=None, average=0.0, information=1.0, revision="")


def test_what_cannot_be_is_refused() -> None:
    store = MemoryStore()
    store.create(CollectionMetadata(space=fake_space()))
    store.write(rows(range(4)))
    query = queries(1)[0]
    for options, reason in [
        ({"lanes": "said"}, "lanes is 'said'"),
        ({"lanes": ()}, "lanes is"),
        ({"lanes": ("seen", "heard")}, "one or both of 'seen' and 'said'"),
        ({"texts": ["storm"]}, "texts are for the lane"),
        ({"lanes": BOTH}, r"one for each of 1 query \(texts=\[…\]\), not none"),
        ({"lanes": BOTH, "texts": "storm"}, "not a string"),
        ({"lanes": BOTH, "texts": ["a", "b"]}, "not 2"),
        ({"lanes": BOTH, "texts": ["?!"]}, "has no word"),
        ({"lanes": BOTH, "texts": ["a"], "rerank": "maxsim"}, "rerank orders by what is seen alone"),
    ]:
        with pytest.raises(InputError, match=reason):
            store.search(query, **options)  # type: ignore[arg-type]
    for texts, reason in [
        ([], "there are no texts"),
        ([TimedText("x.mp4", "storm")], r"of 1 video with texts none .* x\.mp4"),
        ([TimedText("1.mp4", "…")], "there is no word"),
    ]:
        with pytest.raises(InputError, match=reason):
            attach_texts(store, texts, progress=False)
    with pytest.raises(InputError, match="language is 'klingon'; it is none, or one of"):
        attach_texts(store, said(range(4)), language="klingon")
    attach_texts(store, said(range(4)), progress=False)
    with pytest.raises(InputError, match=r"in the language english, not none\. .* --remove"):
        attach_texts(store, said(range(4)), language=None, progress=False)
    store.write([replace(row, id=f"{row.id}-", video_id="other", path="/b/1.mp4") for row in rows(range(1, 2))])
    with pytest.raises(InputError, match=r"/1\.mp4 and /b/1\.mp4 are stored and end in '1\.mp4'"):
        attach_texts(store, [TimedText("1.mp4", "storm")], progress=False)
