"""Searches by a moment or a picture, the moments of a video, and what is said: the page's API and the library."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dits_adapter import BiasBank, TimedText, VideoEncoder, VideoSearch, apply_bias, attach_texts
from dits_adapter.errors import InputError
from dits_adapter.serve import _moment_routes as routes
from dits_adapter.serve._app import create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._middleware import PICTURES
from dits_adapter.serve._searcher import Searcher
from dits_adapter.sources._feedback_file import read_entries
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.vectors import unit
from tests.serve.conftest import HOME, QUERY
from tests.serve.test_searcher import row
from tests.waiting import PATIENCE

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def http(searcher):
    return TestClient(create_app(searcher), base_url=HOME)


@pytest.fixture(scope="module")
def segments(searcher):
    return {s.id: s for s in searcher.store.read(ReadRequest(vectors=True, frames=True))}


@pytest.fixture(scope="module")
def hit(http):
    return http.get("/api/search", params={"query": QUERY}).json()["adapted"][0]


def by_hand(segments, query, *, without=None, limit=10, per_video=1):
    """(video, id) of the ranking, by comparing with every segment in float64."""
    scored = sorted(
        ((float(s.vector.astype(float) @ query.astype(float)), s) for s in segments.values() if s.id != without),
        key=lambda item: -item[0],
    )
    videos: dict[str, list] = {}
    for _, segment in scored:
        videos.setdefault(segment.payload["video_id"], []).append(segment.id)
    return [(video, id) for video, ids in list(videos.items())[:limit] for id in ids[:per_video]]


@pytest.mark.parametrize("options", [{}, {"limit": 3, "per_video": 2}, {"limit": 8, "per_video": 20}])
def test_what_is_like_a_moment(http, searcher, segments, hit, options):
    answer = http.get("/api/similar", params={"segment": hit["id"], **options}).json()
    found = [(result["video_id"], result["id"]) for result in answer["results"]]
    assert found == by_hand(segments, segments[hit["id"]].vector, without=hit["id"], **options)
    assert options == {"limit": 3, "per_video": 2} or hit["video_id"] in [video for video, _ in found]
    assert (answer["of"]["id"], answer["of"]["frame"].partition("?")[0]) == (hit["id"], f"{hit['video']}/frame")
    assert all(result["probability"] is None for result in answer["results"])
    search = VideoSearch(searcher.encoder, searcher.store).search_like(hit["id"], **options)
    assert [(match.hit.video_id, match.hit.id) for match in search.matches] == found
    assert {match.probability for match in search.matches} == {None}


def test_a_moments_page_goes_on_where_the_last_one_ended(searcher, segments, hit):
    whole = by_hand(segments, segments[hit["id"]].vector, without=hit["id"])
    pages = [searcher.store.search_like(hit["id"], limit=3, offset=offset) for offset in (0, 3, 6)]
    assert [(h.video_id, h.id) for page in pages for h in page] == whole


def test_what_is_no_moment_is_a_sentence(http, searcher, hit):
    answer = http.get("/api/similar", params={"segment": "no-such"})
    assert (answer.status_code, "has no segment 'no-such'" in answer.json()["detail"]) == (400, True)
    assert http.get("/api/similar").status_code == 422
    for options in ({"lanes": ("seen", "said"), "texts": ["x"]}, {"rerank": "maxsim"}):
        with pytest.raises(InputError, match="leave out lanes and rerank"):
            searcher.store.search_like(hit["id"], **options)
    filtered = http.get("/api/similar", params={"segment": hit["id"], "words": "long"}).json()["results"]
    assert [Path(result["path"]).name for result in filtered] == ["long.mp4"]


def test_the_score_bias_is_of_texts(encoder):
    """It moves neither what is like a moment nor the vectors that a timeline compares; texts' moments have it."""
    rng = np.random.default_rng(0)
    texts = encoder.encode_document([QUERY, "a dog", "blue"])
    with MemoryStore(space=encoder.space) as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write([row(n, unit(vector)) for n, vector in enumerate(rng.normal(size=(20, 32)))])
        apply_bias(store, BiasBank(unit(texts), encoder.space, encoder.space.text.probes))
        segments = {s.id: s for s in store.read(ReadRequest(vectors=True))}
        http = TestClient(create_app(Searcher(store, encoder)), base_url=HOME)
        first = http.get("/api/search", params={"query": QUERY}).json()["plain"][0]
        results = http.get("/api/similar", params={"segment": first["id"]}).json()["results"]
        like = by_hand(segments, segments[first["id"]].vector, without=first["id"])
        assert [(result["video_id"], result["id"]) for result in results] == like
        noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        picture = io.BytesIO()
        Image.fromarray(noise).save(picture, "PNG")
        results = http.post("/api/image", content=picture.getvalue(), headers=JPEG).json()["results"]
        seen = by_hand(segments, encoder.encode_image(noise))
        assert [(result["video_id"], result["id"]) for result in results] == seen
        matches = VideoSearch(encoder, store).search_image(noise).matches
        assert [(match.hit.video_id, match.hit.id) for match in matches] == seen
        url = f"/api/videos/{first['video_id']}/timeline"
        moment = http.get(url, params={"query": QUERY}).json()["moments"][0]
        assert moment["scores"]["plain"] == pytest.approx(first["score"], abs=1e-5)
        cosine = float(segments[first["id"]].vector @ encoder.encode_document(QUERY))
        assert abs(moment["scores"]["plain"] - cosine) > 0.01
        moment = http.get(url, params={"segment": first["id"]}).json()["moments"][0]
        assert moment["scores"] == {"similar": pytest.approx(1.0, abs=1e-5)}


class TestTimeline:
    @pytest.mark.parametrize("options", [{}, {"strength": 0.5, "steps": 3}])
    def test_the_mean_of_the_frames_is_the_score_of_their_segment(self, http, segments, options):
        answer = http.get("/api/search", params={"query": QUERY, "per_video": 20, **options}).json()
        video = next(hit["video_id"] for hit in answer["plain"] if "long" in hit["path"])
        url = f"/api/videos/{video}/timeline"
        timeline = http.get(url, params={"query": QUERY, **options}).json()
        own = [s for s in segments.values() if s.payload["video_id"] == video]
        frames = len(own[0].frame_vectors)
        assert len(timeline["moments"]) == frames * len(own) == frames * 4
        assert (timeline["duration"], timeline["complete"]) == (pytest.approx(8), True)
        for side in ("plain", "adapted"):
            scores = np.array([m["scores"][side] for m in timeline["moments"]]).reshape(-1, frames)
            hits = sorted((hit for hit in answer[side] if hit["video_id"] == video), key=lambda hit: hit["start"])
            assert scores.mean(axis=1) == pytest.approx([hit["score"] for hit in hits], abs=1e-5)
            best = [timeline["moments"][n * frames + int(row.argmax())] for n, row in enumerate(scores)]
            assert all(m["start"] <= hit["timestamp"] <= m["end"] for m, hit in zip(best, hits, strict=True))
        edges = [edge for m in timeline["moments"] for edge in (m["start"], m["end"])]
        assert edges[1:-1:2] == pytest.approx(edges[2::2])
        assert (edges[0], edges[-1]) == (0, pytest.approx(8))

    def test_many_segments_are_their_own_moments(self, http, searcher, segments, hit, monkeypatch):
        monkeypatch.setattr("dits_adapter.serve._moments._FRAMED", 1)
        url = f"/api/videos/{hit['video_id']}/timeline"
        moments = http.get(url, params={"query": QUERY}).json()["moments"]
        own = {s.payload["start"]: s.vector for s in segments.values() if s.payload["video_id"] == hit["video_id"]}
        query = searcher.encoder.encode_query(QUERY).astype(float)
        assert [m["start"] for m in moments] == sorted(own)
        scores = [own[start].astype(float) @ query for start in sorted(own)]
        assert [m["scores"]["adapted"] for m in moments] == pytest.approx(scores, abs=1e-5)
        monkeypatch.setattr("dits_adapter.serve._moments._MOST_SEGMENTS", 1)
        assert http.get(url, params={"query": QUERY}).json()["complete"] is False

    @pytest.mark.parametrize(
        ("video", "params", "message"),
        [
            ("unknown", {"query": QUERY}, "has no video 'unknown'"),
            (None, {}, "give a query or a segment"),
            (None, {"query": QUERY, "segment": "x"}, "give a query or a segment"),
            (None, {"segment": "x"}, "has no segment 'x'"),
            (None, {"query": " "}, "empty or blank"),
            (None, {"query": QUERY, "steps": 11}, "this adapter runs 0 to 10"),
        ],
    )
    def test_bad_requests_are_sentences(self, http, hit, video, params, message):
        answer = http.get(f"/api/videos/{video or hit['video_id']}/timeline", params=params)
        assert (answer.status_code, message in answer.json()["detail"]) == (400, True)


class TestPicture:
    def test_a_frame_finds_its_video(self, http, searcher, segments, hit):
        content = http.get(hit["frame"]).content
        answer = http.post("/api/image", content=content, headers=JPEG).json()
        query = searcher.encoder.encode_image(content)
        assert [(r["video_id"], r["id"]) for r in answer["results"]] == by_hand(segments, query)
        assert answer["results"][0]["video_id"] == hit["video_id"]
        assert {r["probability"] for r in answer["results"]} == {None}
        one = {"limit": 1, "per_video": 2, "words": "clip"}
        few = http.post("/api/image", params=one, content=content, headers=JPEG).json()["results"]
        assert (len(few), len({r["video_id"] for r in few})) == (2, 1)
        search = VideoSearch(searcher.encoder, searcher.store)
        matches = search.search_image(content, limit=3).matches
        assert [(m.hit.id, m.probability) for m in matches] == [(r["id"], None) for r in answer["results"][:3]]
        with pytest.raises(InputError, match="leave out lanes"):
            search.search_image(content, lanes=("said",), texts=["x"])
        assert http.get("/api/about").json()["pictures"] is True

    @pytest.mark.parametrize(
        ("content", "headers", "status", "reason"),
        [
            (b"no picture", JPEG, 400, "in no format that is read"),
            (b"", JPEG, 400, "in no format that is read"),
            (b"x", {"content-type": "text/plain"}, 415, "the body has to be a picture"),
            (b"x" * 8_000_001, JPEG, 413, "larger than 8,000,000 bytes"),
            (b"x", JPEG | {"origin": "http://elsewhere.example"}, 403, "another web site"),
            (b"x", JPEG | {"sec-fetch-site": "cross-site"}, 403, "another web site"),
        ],
    )
    def test_what_is_no_picture_is_refused(self, http, content, headers, status, reason):
        answer = http.post("/api/image", content=content, headers=headers)
        assert (answer.status_code, reason in answer.json()["detail"]) == (status, True)

    def test_pictures_wait_in_a_short_queue_and_nothing_else_does(self, searcher, monkeypatch):
        """Pictures that still arrive have a place in the queue, too: each may hold 8 MB."""
        may_search = threading.Event()

        def slow(*_):
            assert may_search.wait(PATIENCE)
            return {"of": None, "results": [], "seconds": 0.0}

        monkeypatch.setattr(routes, "search_image", slow)

        async def ask():
            may_arrive = asyncio.Event()

            async def trickle():
                yield b"x"
                await may_arrive.wait()

            transport = httpx.ASGITransport(create_app(searcher))
            async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:

                async def send(content=b"x"):
                    return await client.post("/api/image", content=content, headers=JPEG)

                bodies = [b"x" if n % 2 else trickle() for n in range(PICTURES)]
                waiting = [asyncio.create_task(send(body)) for body in bodies]
                await asyncio.sleep(0.2)
                refused, about = await send(), await client.get("/api/about")
                may_search.set()
                may_arrive.set()
                return refused, about, [await request for request in waiting]

        refused, about, waited = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert {answer.status_code for answer in (about, *waited)} == {200}

    def test_inside_another_application(self, searcher, http, hit):
        """Mounted under a path, with a token, pictures pass and the field for the token comes."""
        outer = FastAPI()
        outer.mount("/search", create_app(searcher, token="open-sesame"))
        client = TestClient(outer, base_url="http://10.0.0.1/search/")
        headers = JPEG | {"authorization": "Bearer open-sesame"}
        content = http.get(hit["frame"]).content + bytes(20_000)  # beyond the bytes that other bodies may have
        assert client.post("api/image", content=content, headers=headers).status_code == 200
        assert "Token" in client.get("", headers={"accept": "text/html"}).text

    def test_the_token_is_asked_for(self, searcher, hit):
        guarded = TestClient(create_app(searcher, token="open-sesame"), base_url="http://10.0.0.1")
        for answer in (
            guarded.post("/api/image", content=b"x", headers=JPEG),
            guarded.get("/api/similar", params={"segment": hit["id"]}),
            guarded.get(f"/api/videos/{hit['video_id']}/timeline", params={"query": QUERY}),
        ):
            assert answer.status_code == 401


@pytest.fixture(scope="module")
def speaking(library, tiny_clip, encoder):
    """The same videos in a store of their own, with texts beside three of them."""
    store = MemoryStore(space=encoder.space)
    ingest(store, library, VideoEncoder.from_pretrained(tiny_clip), segment_seconds=2, progress=False)
    texts = [
        TimedText("clip-1.mp4", "A harbor at night.", 2, 4),
        TimedText("clip-1.mp4", "The captain explains the storm.", 2, 4),
        TimedText("clip-2.mp4", "Bread needs an hour."),
        TimedText("long.mp4", "The captain sleeps."),
    ]
    attach_texts(store, texts, progress=False)
    searcher = Searcher(store, encoder)
    searcher.load()
    return searcher


@pytest.fixture(scope="module")
def spoken(speaking):
    return TestClient(create_app(speaking), base_url=HOME)


class TestLanes:
    def test_what_is_said_finds_and_shows_its_line(self, spoken, http):
        words = "the captain's storm"
        answer = spoken.get("/api/search", params={"query": words, "lanes": "said"}).json()
        for side in ("plain", "adapted"):
            found = [(Path(r["path"]).name, r["start"], r["said"], r["lanes"]) for r in answer[side]]
            assert [name for name, *_ in found] == ["clip-1.mp4", "long.mp4"]
            assert found[0][1:3] == (2, "The captain explains the storm.")
            assert [list(lanes) for *_, lanes in found] == [["said"], ["said"]]
            assert {r["probability"] for r in answer[side]} == {None}
        both = spoken.get("/api/search", params={"query": words, "lanes": ["seen", "said"]}).json()["adapted"]
        said = {Path(r["path"]).name: r["said"] for r in both}
        assert len(both) == 8
        assert {name for name, line in said.items() if line} <= {"clip-1.mp4", "long.mp4"}
        assert [r["lanes"]["seen"]["rank"] for r in both if "said" not in r["lanes"]]
        assert spoken.get("/api/about").json()["texts"] is True
        assert http.get("/api/about").json()["texts"] is False

    def test_what_is_seen_alone_is_as_without_texts(self, spoken, http):
        for side in ("plain", "adapted"):
            answers = (client.get("/api/search", params={"query": QUERY}).json() for client in (spoken, http))
            mine, theirs = ([(r["video_id"], r["said"], r["lanes"]) for r in answer[side]] for answer in answers)
            assert mine == theirs
            assert {line for _, line, _ in mine} == {None}

    @pytest.mark.parametrize(
        ("params", "status", "message"),
        [
            ({"lanes": "smelt"}, 422, "Input should be 'seen' or 'said'"),
            ({"lanes": ["said", "said"]}, 400, "one or both of"),
            ({"lanes": ["seen", "said"], "min_probability": 0.5}, 400, "more is searched than what is seen"),
            ({"lanes": "said", "query": "?!"}, 400, "has no word that could be looked for"),
        ],
    )
    def test_bad_requests_are_sentences(self, spoken, params, status, message):
        answer = spoken.get("/api/search", params={"query": QUERY, **params})
        assert (answer.status_code, message in answer.json()["detail"]) == (status, True)

    def test_no_feedback_is_taken_of_what_is_said(self, speaking, tmp_path):
        """A text of what is said would teach an adapter wrong what is seen."""
        file = tmp_path / "feedback.jsonl"
        app = create_app(speaking, feedback=FeedbackRecorder(file, log_queries=True))
        client = TestClient(app, base_url=HOME)
        for lanes, taken in ((["seen"], True), (["said"], False), (["seen", "said"], False)):
            answer = client.get("/api/search", params={"query": f"the captain {lanes}", "lanes": lanes}).json()
            assert (answer["search"] is not None) == taken
        assert [entry.query for _, entry in read_entries(file)] == ["the captain ['seen']"]

    def test_a_collection_without_texts_says_so(self, http):
        answer = http.get("/api/search", params={"query": QUERY, "lanes": ["seen", "said"]})
        assert (answer.status_code, "has no texts" in answer.json()["detail"]) == (503, True)
