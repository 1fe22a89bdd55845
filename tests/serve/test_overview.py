"""The collection overview: what it says is true, it is read in the background, and no search waits for it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dits_adapter import (
    BiasBank,
    DITSQueryEncoder,
    FailureRow,
    Hubness,
    MemoryStore,
    QdrantStore,
    SegmentRow,
    apply_bias,
)
from dits_adapter.adapters import fit_query_bank
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.errors import StoreError
from dits_adapter.serve import _background as background_module
from dits_adapter.serve import _listing as listing_module
from dits_adapter.serve._app import create_app
from dits_adapter.serve._background import Background
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._hubs import draw_plane
from dits_adapter.serve._searcher import Searcher
from dits_adapter.sources._feedback_file import LoggedQuery, append
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.rows import segment_id, video_id_of
from dits_adapter.vectors import unit
from tests.serve.conftest import HOME, QUERY
from tests.waiting import PATIENCE, wait_until

URL = "/api/collection"
WIDTH = 32


def rows(videos, segments, seed=0):
    """Make segments of two seconds; the first video lies where all queries are."""
    rng = np.random.default_rng(seed)
    for video in range(videos):
        for n in range(segments):
            vector = unit(rng.normal(size=WIDTH))
            yield SegmentRow(
                id=f"{video}-{n}",
                video_id=f"v{video}",
                path=f"/videos/{'Long' if video % 2 else 'short'} {video}.mp4",
                start=2.0 * n,
                end=2.0 * n + 2,
                timestamps=(2.0 * n + 1,),
                duration=2.0 * segments,
                fps=10.0,
                decoder="pyav",
                size=1,
                mtime_ns=1,
                segments=segments if n == segments - 1 else None,
                vector=vector,
                frame_vectors=vector[None],
            )


@pytest.fixture
def store(encoder):
    store = MemoryStore(space=encoder.space)
    store.create(CollectionMetadata(space=encoder.space, segment_seconds=2))
    store.write(list(rows(12, 3))[::-1])  # databases give segments in any order
    store.write_failures(
        [FailureRow("/videos/broken.mp4", 5, 6, "is no video"), FailureRow("/videos/a.mp4", 5, 6, "is cut")]
    )
    return store


@pytest.fixture
def serving(store, encoder):
    def serve(**options):
        return TestClient(create_app(Searcher(store, encoder), **options), base_url=HOME)

    return serve


def when_ready(http, path=""):
    wait_until(lambda: not http.get(URL + path).json()["working"])
    return http.get(URL + path).json()


def test_facts_files_and_failures(serving, store, encoder):
    http = serving()
    store.delete([])
    del store._rows["3-1"]  # a video whose ingestion was interrupted
    first = http.get(URL).json()
    assert (first["about"]["segments"], first["videos"]) == (35, 11)
    facts = when_ready(http)
    told = {
        name: facts[name]
        for name in ("sample", "seconds", "incomplete", "failures", "error", "bias", "texts", "tenant")
    }
    assert told == {
        "sample": False,
        "seconds": 66.0,
        "incomplete": 1,
        "failures": 2,
        "error": "",
        "bias": None,
        "texts": False,
        "tenant": None,
    }
    assert (facts["cut"], facts["store"]) == ("segments of 2 s overlapping by 0 s", "memory")
    assert facts["about"]["calibrated"] is True
    assert facts["adapter_name"] == encoder.name_or_path
    page = http.get(f"{URL}/files", params={"words": "LONG mp4", "offset": 1, "limit": 2}).json()
    assert page["total"] == 6
    assert [file["name"] for file in page["files"]] == ["/videos/Long 11.mp4", "/videos/Long 3.mp4"]
    assert page["files"][1] == {
        "video_id": "v3",
        "name": "/videos/Long 3.mp4",
        "video": "api/videos/v3",
        "seconds": 6.0,
        "segments": 2,
        "expected": 3,
    }
    assert http.get(f"{URL}/failures").json() == {
        "total": 2,
        "failures": [
            {"path": "/videos/a.mp4", "reason": "is cut"},
            {"path": "/videos/broken.mp4", "reason": "is no video"},
        ],
    }
    assert http.get(f"{URL}/failures", params={"words": "broken"}).json()["total"] == 1
    assert http.get(f"{URL}/files", params={"limit": 501}).status_code == 422


def test_of_a_large_collection_all_videos_are_listed_by_their_last_segments(serving, store, monkeypatch):
    monkeypatch.setattr(listing_module, "_MOST_SEGMENTS", 10)
    monkeypatch.setattr(listing_module, "_DRAWN_FROM", 6)
    del store._rows["4-2"]  # a video whose ingestion was interrupted
    read, reads = store.read, []
    monkeypatch.setattr(store, "read", lambda request: (segment for segment in count(read(request), reads)))
    facts = when_ready(http := serving())
    assert len(reads) == 11 + 6  # of 35 segments the last ones, and those of two videos for the sample
    assert (facts["sample"], facts["videos"], facts["incomplete"]) == (False, 11, None)
    assert facts["seconds"] == 66.0
    page = http.get(f"{URL}/files").json()
    assert page["total"] == 11
    assert {(file["segments"], file["expected"], file["seconds"]) for file in page["files"]} == {(3, 3, 6.0)}
    assert "v4" not in {file["video_id"] for file in page["files"]}
    assert when_ready(http, "/hubs")["measured"]["segments"] == 6


def test_the_sample_is_the_same_in_whatever_order_segments_are_read(store, monkeypatch):
    monkeypatch.setattr(listing_module, "_SAMPLE", 4)
    monkeypatch.setattr(listing_module, "_DRAWN_FROM", 6)
    backwards, forwards = store._rows, dict(sorted(store._rows.items()))
    for most in (100, 10):
        monkeypatch.setattr(listing_module, "_MOST_SEGMENTS", most)
        drawn = []
        for store._rows in (backwards, forwards):
            drawn.append(listing_module.read_listing(store, lambda done, total: None).sample)
        assert drawn[0] == drawn[1]
        assert len(drawn[0]) == 4


def count(segments, reads):
    for segment in segments:
        reads.append(segment.id)
        yield segment


@pytest.mark.parametrize("limit", ["_MOST_VIDEOS", "_MOST_SEGMENTS"])
def test_of_too_many_videos_a_sample_is_listed_and_that_is_told(serving, store, monkeypatch, limit):
    """Likewise of many segments that another program put in, where nothing says which are the last ones."""
    monkeypatch.setattr(listing_module, "_MOST_SEGMENTS", 10)
    monkeypatch.setattr(listing_module, limit, 4)
    if limit == "_MOST_SEGMENTS":
        foreign = store.metadata().model_copy(update={"layout": PointLayout(video="video_id", path="path")})
        monkeypatch.setattr(store, "metadata", lambda: foreign)
    facts = when_ready(http := serving())
    assert (facts["sample"], facts["videos"], facts["incomplete"], facts["seconds"]) == (True, 12, None, 72.0)
    assert http.get(f"{URL}/files").json()["total"] == (4 if limit == "_MOST_VIDEOS" else 2)


def test_searches_do_not_wait_for_it(serving, store, monkeypatch):
    """While it is read, searches are answered, nobody reads a second time, and what was read before stays."""
    begun, go_on = threading.Event(), threading.Event()
    read, reads = store.read, []

    def slow(request):
        if request.ids is None and request.limit == listing_module._MOST_SEGMENTS:
            reads.append(request)
            begun.set()
            assert go_on.wait(PATIENCE)
        return read(request)

    monkeypatch.setattr(store, "read", slow)
    http = serving()
    assert http.get(URL).json()["working"] is True
    assert begun.wait(PATIENCE)
    assert http.get(URL).json()["seconds"] is None
    assert http.get("/api/search", params={"query": QUERY}).json()["adapted"]
    assert http.get(f"{URL}/hubs").json()["measured"] is None
    for path in ("files", "failures"):  # not that there are none
        assert http.get(f"{URL}/{path}").json() == {"total": None, path: []}
    go_on.set()
    when_ready(http)
    assert len(reads) == 1
    monkeypatch.setattr(background_module, "_CHANGED_SECONDS", 0.0)
    begun.clear()
    go_on.clear()
    store.write(list(rows(13, 3))[-3:])
    again = http.get(URL).json()
    assert (again["working"], again["seconds"], again["about"]["segments"]) == (True, 78.0, 39)
    go_on.set()
    assert when_ready(http)["incomplete"] == 0


def test_without_queries_it_says_what_is_missing(serving, tmp_path):
    http = serving(feedback=FeedbackRecorder(tmp_path / "feedback.jsonl"))
    when_ready(http)
    hubs = when_ready(http, "/hubs")["measured"]
    assert (hubs["segments"], hubs["queries"], hubs["rankings"], hubs["plane"]) == (36, 0, [], None)
    assert "To measure hubs takes 20 queries, and there are 0" in hubs["note"]
    assert "--log-queries" in hubs["note"]


def test_gap_and_hubs_are_those_of_the_rankings(serving, store, encoder, tmp_path):
    file = tmp_path / "feedback.jsonl"
    http = serving(feedback=FeedbackRecorder(file))
    queries = [f"a scene of {n} balls" for n in range(25)]
    for query in [*queries, "beach.mp4"]:  # the last one is no text that could be searched
        append(file, LoggedQuery(time=datetime.now(timezone.utc), query=query))
    when_ready(http)
    hubs = when_ready(http, "/hubs")["measured"]
    assert (hubs["segments"], hubs["queries"], hubs["source"], hubs["note"]) == (
        36,
        25,
        "feedback",
        "",
    )
    by_id = {row.id: row.vector for row in store._rows.values()}
    ids = sorted(by_id)
    items = np.stack([by_id[id] for id in ids]).astype(np.float64)
    plain = unit(encoder.embed(queries)).astype(np.float64)
    adapted = encoder.encode_query(queries).astype(np.float64)
    assert [ranking["name"] for ranking in hubs["rankings"]] == ["plain CLIP", "DITS"]
    for place, (ranking, texts) in enumerate(zip(hubs["rankings"], (plain, adapted), strict=True)):
        counts = dict.fromkeys(ids, 0)
        for text in texts:
            cosines = {id: float(np.float32(items[row] @ text)) for row, id in enumerate(ids)}
            for id in sorted(ids, key=lambda id, of=cosines: -of[id])[:10]:
                counts[id] += 1
        expected = Hubness(np.array(list(counts.values())), 10, 25)
        assert ranking["skewness"] == pytest.approx(expected.skewness)
        assert (ranking["unseen"], ranking["most"]) == (expected.unseen, max(counts.values()))
        assert ranking["curve"][0] == [1, max(counts.values())]
        assert ranking["curve"][-1] == [36, min(counts.values())]
        for hub in hubs["hubs"]:
            assert hub["occurrences"][place] == counts[hub["id"]]
    assert hubs["hubs"][0]["occurrences"][0] == hubs["rankings"][0]["most"]
    assert hubs["hubs"][0]["frame"].startswith("api/videos/v")
    plane = hubs["plane"]
    assert plane["apart_plain"] == pytest.approx(np.linalg.norm(items.mean(0) - plain.mean(0)), abs=1e-6)
    assert plane["apart_adapted"] == pytest.approx(np.linalg.norm(items.mean(0) - adapted.mean(0)), abs=1e-6)
    assert plane["best_adapted"] == pytest.approx((adapted @ items.T).max(1).mean(), abs=1e-6)
    assert (len(plane["segments"]), len(plane["plain"]), len(plane["adapted"])) == (36, 25, 25)


def test_the_plane_keeps_the_distance_of_the_means_and_the_widest_spread():
    rng = np.random.default_rng(0)
    spread = np.array([0.05, 0.3, 0.1, 0.05])
    items = unit(rng.normal(size=(60, 4)) * spread + [1, 0, 0, 0])
    plain = unit(rng.normal(size=(50, 4)) * spread + [0, 0, 0, 1])
    plane = draw_plane(items, plain, plain)
    drawn = {name: np.array(getattr(plane, name)) for name in ("segments", "plain")}
    across = drawn["segments"].mean(0) - drawn["plain"].mean(0)
    assert across[0] == pytest.approx(plane.apart_plain, abs=1e-3)  # all of the distance is drawn
    assert abs(across[1]) < 1e-3
    assert np.abs(np.corrcoef(drawn["segments"][:, 1], items[:, 1])[0, 1]) > 0.99
    assert np.linalg.norm(drawn["segments"], axis=1).max() <= 1 + 1e-4


def test_queries_of_a_bank_stand_in_and_the_score_bias_is_taken(store, encoder, tmp_path, tiny_clip):
    """The page says that the adapter was made of these queries, and measures rankings as searches make them."""
    rng = np.random.default_rng(1)
    bank = fit_query_bank(rng.normal(size=(30, WIDTH)) + 1)
    made = Artifact(bank, encoder.space).save(tmp_path / "bank")
    banked = DITSQueryEncoder.from_pretrained(made, encoder=tiny_clip, backend="torch")
    apply_bias(store, BiasBank.from_pretrained(made), progress=False)
    http = TestClient(create_app(Searcher(store, banked)), base_url=HOME)
    facts = when_ready(http)
    assert (facts["bias"], facts["bias_fits"]) == (0.5, True)
    hubs = when_ready(http, "/hubs")["measured"]
    assert (hubs["queries"], hubs["source"]) == (30, "bank")
    assert "made of these very queries" in hubs["note"]
    names = [ranking["name"] for ranking in hubs["rankings"]]
    assert names == ["plain CLIP", "plain CLIP, score bias 0.5", "query-bank, score bias 0.35"]
    skewness = [ranking["skewness"] for ranking in hubs["rankings"]]
    assert skewness[0] > skewness[1]


def test_a_store_that_is_away_is_a_sentence_and_tried_again(serving, store, monkeypatch, caplog):
    monkeypatch.setattr(background_module, "_RETRY_SECONDS", 0.0)
    http = serving()
    read = store.read
    for error, told in (
        (StoreError("the server is away."), "the server is away."),
        (OSError("x"), "it failed (OSError)"),
    ):

        def refuse(_, error=error):
            raise error

        monkeypatch.setattr(store, "read", refuse)
        http.get(URL)
        wait_until(lambda told=told: told in http.get(URL).json()["error"])
    assert "the listing cannot be computed" in caplog.text
    monkeypatch.setattr(store, "read", read)
    wait_until(lambda: http.get(URL).json()["seconds"] == 72)


def test_the_end_of_the_application_ends_it(serving, store):
    steps = []

    def compute(progress):
        while True:
            steps.append(len(steps))
            progress(1, 2)

    endless = Background(compute, "number")
    assert endless.look("x").working is True
    wait_until(lambda: endless.look("x").done)
    endless.close()
    wait_until(lambda: not any(thread.name.startswith("number") for thread in threading.enumerate()))
    assert endless.look("y").working is True  # which is not computed any more


def test_only_those_who_may_see_it(serving):
    http = TestClient(serving(token="open-sesame").app, base_url="http://10.0.0.1")
    for path in ("/collection", URL, f"{URL}/files", f"{URL}/failures", f"{URL}/hubs"):
        assert http.get(path).status_code == 401
        assert http.get(path, headers={"authorization": "Bearer open-sesame"}).status_code == 200
    opened = http.get("/collection?token=open-sesame", follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "./collection?")


def test_a_tenant_sees_its_own_alone(client, encoder, tmp_path):
    whole = CollectionMetadata(space=encoder.space, segment_seconds=2, tenants=True)
    for tenant, videos in (("acme", 2), ("other", 5)):
        store = QdrantStore(client, "shared", space=encoder.space, tenant=tenant)
        store.create(whole)
        store.write(list(rows_with_uuids(videos, tenant)))
        store.write_failures([FailureRow(f"/{tenant}.mp4", 1, 1, "is no video")])
    store = QdrantStore(client, "shared", space=encoder.space, tenant="acme")
    http = TestClient(create_app(Searcher(store, encoder)), base_url=HOME)
    facts = when_ready(http)
    assert (facts["tenant"], facts["videos"], facts["failures"]) == ("acme", 2, 1)
    assert http.get(f"{URL}/files").json()["total"] == 2
    assert "other" not in json.dumps([http.get(f"{URL}/{page}").json() for page in ("files", "failures")])


def rows_with_uuids(videos, tenant):
    for row in rows(videos, 3):
        video = video_id_of(f"{tenant} {row.video_id}")
        id = segment_id(video, row.start, row.end, tenant)
        yield replace(row, id=id, video_id=video, path=f"/{tenant}{row.path}")
