"""The HTTP side: what it answers, what it refuses to read, and whom it refuses."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from qdrant_client import QdrantClient, models

from dits_adapter import QdrantStore, VideoEncoder, search_page
from dits_adapter.cli import main
from dits_adapter.errors import InputError
from dits_adapter.serve import _frames as frames_module
from dits_adapter.serve import _server as server_module
from dits_adapter.serve import _video_routes as routes_module
from dits_adapter.serve._app import create_app
from dits_adapter.serve._pages import STATIC
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant.aliases import switch
from dits_adapter.video import decode as decode_module
from tests.serve.conftest import HOME, QUERY
from tests.stores.server import qdrant_client
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def http(searcher):
    return TestClient(create_app(searcher), base_url=HOME)


@pytest.fixture(scope="module")
def hits(http):
    return http.get("/api/search", params={"query": QUERY}).json()["adapted"]


def test_search_answers_what_the_searcher_finds(http, searcher):
    options = {"strength": 0.5, "steps": 3, "limit": 2, "words": "mp4"}
    answer = http.get("/api/search", params={"query": QUERY, **options}).json()
    found = searcher.compare(QUERY, CompareOptions(strength=0.5, steps=3, limit=2))
    assert [hit["video_id"] for hit in answer["adapted"]] == [result.video_id for result in found.adapted]
    assert answer["map"] == found.map.model_dump(mode="json") | {"path": [list(p) for p in found.map.path]}
    about = http.get("/api/about").json()
    assert (about["collection"], about["segments"], about["adapter"], about["max_steps"]) == (
        "videos",
        18,
        "dits",
        10,
    )


def test_probabilities(http, searcher):
    answer = http.get("/api/search", params={"query": QUERY, "min_probability": 0.5}).json()
    found = searcher.compare(QUERY, CompareOptions(min_probability=0.5)).adapted
    assert 0 < len(found) < 8
    assert [hit["probability"] for hit in answer["adapted"]] == [hit.probability for hit in found]
    assert len(answer["plain"]) == 8
    assert http.get("/api/about").json()["calibrated"] is True


@pytest.mark.parametrize(
    ("params", "status", "message"),
    [
        ({}, 422, "query: Field required."),
        ({"query": "x", "limit": 0}, 422, "limit: Input should be greater than or equal to 1."),
        ({"query": "x", "strength": "much"}, 422, "strength: Input should be a valid number"),
        ({"query": "x", "strength": "nan"}, 422, "strength: Input should be a finite number"),
        ({"query": "x", "min_duration": "inf"}, 422, "min_duration: Input should be a finite number"),
        ({"query": "x", "min_probability": 1}, 422, "min_probability: Input should be less than 1."),
        ({"query": "x", "min_probability": 0.5, "strength": 0.5}, 400, "no probabilities are known"),
        ({"query": " "}, 400, "the text is empty or blank"),
        ({"query": "beach.mp4"}, 400, "name of a video file"),
        ({"query": "x", "steps": 11}, 400, "this adapter runs 0 to 10"),
    ],
)
def test_bad_requests_are_sentences(http, params, status, message):
    answer = http.get("/api/search", params=params)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("gr%E4y", "the address holds the byte 0xe4, which is no UTF-8"),
        ("a%20dog%20%ED%A0%BD", "the address holds the byte 0xed, which is no UTF-8"),
        ("a%00b", "the text holds a NUL"),
        ("%E2%80%8B", "the text is empty or blank"),
    ],
)
def test_what_is_no_text_is_not_searched(http, sent, message):
    answer = http.get(f"/api/search?query={sent}")
    assert (answer.status_code, message in answer.json()["detail"]) == (400, True)


def test_a_dead_server_is_a_sentence(encoder, qdrant_process):
    server = qdrant_process()
    QdrantStore(server.url).create(CollectionMetadata(space=encoder.space))
    searcher = Searcher(QdrantStore(server.url, space=encoder.space), encoder)
    searcher.load()
    http = TestClient(create_app(searcher), base_url=HOME)
    assert http.get("/api/search", params={"query": QUERY}).status_code == 200
    assert http.get("/api/videos/0").status_code == 404
    server.kill()
    for path in ("/api/search?query=x", "/api/about", "/api/videos/0/frame"):
        answer = http.get(path)
        assert answer.status_code == 503
        assert "no usable answer" in answer.json()["detail"]


def test_a_deleted_collection_is_not_found(encoder, qdrant_server, hits):
    name = f"deleted-{uuid.uuid4().hex}"
    with QdrantStore(qdrant_server, name, space=encoder.space) as store:
        store.create(CollectionMetadata(space=encoder.space))
        searcher = Searcher(store, encoder)
        searcher.load()
        http = TestClient(create_app(searcher), base_url=HOME)
        assert http.get("/api/about").status_code == 200
        store.client.delete_collection(name)
        video = hits[0]["video"]
        for path in ("/api/about", f"/api/search?query={QUERY}", f"/{video}", f"/{video}/frame"):
            answer = http.get(path)
            assert answer.status_code == 404
            assert f"has no collection '{name}'" in answer.json()["detail"]


def test_an_alias_is_followed_when_its_collection_is_gone(client, searcher, encoder, qdrant_server):
    """Each kind of request in turn is the first to find it gone."""
    name = f"followed-{uuid.uuid4().hex}"
    server = qdrant_client(qdrant_server)
    stored, _ = client.scroll("videos", limit=100, with_vectors=True)
    points = [models.PointStruct(id=p.id, vector=p.vector, payload=p.payload) for p in stored]
    url = f"/api/videos/{points[0].payload['video_id']}"
    search = f"/api/search?query={QUERY}&limit=1"
    requests = [url, f"{url}/frame", search, "/api/about"]
    collections = [f"{name}-{n}" for n in range(len(requests) + 1)]
    try:
        for n, collection in enumerate(collections):
            store = QdrantStore(server, collection)
            store.create(CollectionMetadata(space=encoder.space, segment_seconds=2))
            server.upsert(collection, points[n:])
        switch(QdrantStore(server, name), collections[0])
        served = Searcher(QdrantStore(qdrant_server, name, space=encoder.space), encoder)
        served.load()
        http = TestClient(create_app(served), base_url=HOME)
        assert len(http.get(search).json()["map"]["cloud"]) >= len(points) - 2
        for n, request in enumerate(requests, 1):
            switch(QdrantStore(server, name), collections[n])
            server.delete_collection(collections[n - 1])
            assert http.get(request).status_code == 200
            assert http.get("/api/about").json()["segments"] == len(points) - n
            found = http.get(search).json()
            hits = {hit["video_id"] + str(hit["start"]) for hit in found["plain"] + found["adapted"]}
            assert len(found["map"]["cloud"]) == len(points) - n - len(hits)
        served.store.close()
    finally:
        for collection in collections:
            server.delete_collection(collection)


class TestVideos:
    def test_whole_and_in_ranges(self, http, hits):
        for hit in hits:
            content = Path(hit["path"]).read_bytes()
            whole = http.get(hit["video"])
            assert whole.content == content
            assert whole.headers["content-type"] == "video/mp4"
            head = http.head(hit["video"])
            assert (head.status_code, head.content, int(head.headers["content-length"])) == (
                200,
                b"",
                len(content),
            )
            for wanted, part in (("0-", content), ("100-199", content[100:200]), ("-50", content[-50:])):
                ranged = http.get(hit["video"], headers={"range": f"bytes={wanted}"})
                assert (ranged.status_code, ranged.content) == (206, part)
                assert ranged.headers["content-range"].endswith(f"/{len(content)}")
            assert http.get(hit["video"], headers={"range": "bytes=99999999-"}).status_code == 416

    def test_frames_are_those_of_the_moment(self, http, hits):
        hit = next(hit for hit in hits if "clip-1" in hit["path"])
        colors = np.random.default_rng(1).integers(0, 256, (4, 3), dtype=np.uint8)
        for second, color in enumerate(colors):
            answer = http.get(f"{hit['video']}/frame", params={"at": second + 0.5})
            assert answer.headers["content-type"] == "image/jpeg"
            corner = np.asarray(Image.open(io.BytesIO(answer.content)))[40, 60]
            np.testing.assert_allclose(corner, color, atol=12)
        assert http.get(f"{hit['video']}/frame", params={"at": "nan"}).status_code == 422

    def test_only_ingested_files_are_read(self, encoder, tiny_clip, library, tmp_path):
        shutil.copytree(library, tmp_path / "videos")
        secret = tmp_path / "secret.mp4"
        secret.write_text("secret")
        client = QdrantClient(":memory:")
        store = QdrantStore(client, space=encoder.space)
        ingest(store, tmp_path / "videos", VideoEncoder.from_pretrained(tiny_clip), progress=False)
        http = TestClient(create_app(Searcher(store, encoder)), base_url=HOME)
        found = http.get("/api/search", params={"query": QUERY}).json()["plain"]
        changed, deleted, replaced, *_ = found

        os.utime(changed["path"], (1, 1))
        Path(deleted["path"]).unlink()
        Path(replaced["path"]).unlink()
        Path(replaced["path"]).symlink_to(secret)
        forged = [
            {"video_id": "forged-1", "path": str(secret)},
            {"video_id": "forged-2", "path": str(secret), "size": 6},
            {"video_id": "forged-3", "path": f"{secret}\0", "size": 6, "mtime_ns": 1},
        ]
        points = [models.PointStruct(id=n, vector={}, payload=payload) for n, payload in enumerate(forged)]
        client.upsert("videos", points)
        for url, status in (
            (changed["video"], 410),
            (deleted["video"], 404),
            (replaced["video"], 410),
            ("api/videos/forged-1", 404),
            ("api/videos/forged-2", 404),
            ("api/videos/forged-3", 404),
            ("api/videos/unknown", 404),
            ("api/videos/..%2F..%2Fsecret.mp4", 404),
            (f"api/videos/{str(secret).replace('/', '%2F')}", 404),
            ("static/..%2Fapp.py", 404),
            ("static/../app.py", 404),
        ):
            for request in (url, f"{url}/frame"):
                answer = http.get(request)
                assert answer.status_code in (status, 404), request
                assert b"secret\n" not in answer.content
                assert answer.content != b"secret"
            assert http.get(url).status_code == status

    def test_more_frames_than_can_wait_are_refused_and_nothing_else_waits(self, searcher, hits, monkeypatch):
        """A hundred requests hold their places while no frame is decoded; the page is answered all the same."""
        may_decode = threading.Event()

        def decode(self, find, at):
            assert may_decode.wait(PATIENCE)
            return b"jpeg"

        monkeypatch.setattr(frames_module.FrameDecoder, "_jpeg", decode)
        app = create_app(searcher)
        url = f"/{hits[0]['video']}/frame"

        async def ask():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=HOME) as http:
                waiting = [asyncio.create_task(http.get(url)) for _ in range(frames_module._MOST_REQUESTS)]
                await asyncio.sleep(0)
                refused = await http.get(url)
                others = [await http.get(path) for path in ("/api/about", f"/api/search?query={QUERY}")]
                may_decode.set()
                return refused, others, [await request for request in waiting], await http.get(url)

        refused, others, waited, after = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "too many frames" in refused.json()["detail"]
        assert {answer.status_code for answer in (*others, *waited, after)} == {200}

    def test_the_packets_of_a_file_are_listed_once(self, searcher, hits, tmp_path, monkeypatch):
        listed = []
        read = decode_module.read_frame_index
        monkeypatch.setattr(
            decode_module, "read_frame_index", lambda path, *rest: (listed.append(path), read(path, *rest))[1]
        )
        http = TestClient(create_app(searcher), base_url=HOME)
        one, other = (next(hit for hit in hits if name in hit["path"]) for name in ("clip-1", "clip-2"))
        for hit in (one, other, one, one, other):
            assert http.get(f"{hit['video']}/frame", params={"at": 1}).status_code == 200
        assert listed == [one["path"], other["path"]]

        copy = shutil.copy(one["path"], tmp_path / "video.mp4")
        decoder = frames_module.FrameDecoder()
        monkeypatch.setattr(frames_module, "_CACHED_FRAMES", 79)  # one of these videos has 40
        for mtime in (1, 2, 2, 1):
            decoder._jpeg(partial(frames_module.FileVersion, str(copy), 10, mtime), 1.0)
        assert listed[2:] == [str(copy)] * 3
        decoder.close()

    def test_a_file_without_pictures_is_a_sentence(self, http, hits, monkeypatch, tmp_path):
        (tmp_path / "no.mp4").write_text("no video")
        file = frames_module.FileVersion(str(tmp_path / "no.mp4"), 8, 0)
        monkeypatch.setattr(routes_module, "_ingested_file", lambda *_: (file, None))
        answer = http.get(f"{hits[0]['video']}/frame")
        assert answer.status_code == 422
        assert "no.mp4: " in answer.json()["detail"]


class TestNothingFromElsewhere:
    @pytest.mark.parametrize(
        "path", ["/", "/api", "/api/about", "/api/openapi.json", "/static/page.js", "/nowhere"]
    )
    def test_headers(self, http, path):
        headers = http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-cache"
        assert "access-control-allow-origin" not in headers

    def test_pages_lead_to_each_other(self, http):
        """By the same links on each, its own marked; what a page loads is there."""
        links = re.findall(r'href="(\./\w*)"', http.get("/").text)
        assert links == ["./", "./compare", "./collection", "./api"]
        for link in links:
            page = http.get(link.removeprefix(".")).text
            assert re.findall(r'href="(\./\w*)"( aria-current="page")?', page) == [
                (other, ' aria-current="page"' if other == link else "") for other in links
            ]
            assert page.count("<title>") == page.count("<h1>") == 1
            assert "$" not in page
            loaded = re.findall(r'(?:href|src)="(static/\S+)"', page)
            assert len(loaded) == 4
            assert {http.get(f"/{file}").status_code for file in loaded} == {200}

    def test_no_file_names_another_host(self):
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(https?:)?//[\w-]+\.\w", text), file

    def test_the_description_is_whole(self, http):
        paths = http.get("/api/openapi.json").json()["paths"]
        assert paths.keys() == {
            "/api/about",
            "/api/search",
            "/api/similar",
            "/api/image",
            "/api/videos/{video_id}",
            "/api/videos/{video_id}/frame",
            "/api/videos/{video_id}/timeline",
            "/api/collection",
            "/api/collection/files",
            "/api/collection/failures",
            "/api/collection/hubs",
        }
        for operation in (operation for methods in paths.values() for operation in methods.values()):
            assert operation["description"]
            assert operation["responses"]["200"]["content"]
        assert http.get("/docs").status_code == http.get("/redoc").status_code == 404


class TestWhoMayAsk:
    @pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
    def test_this_machine(self, http, host):
        assert http.get("/api/about", headers={"host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1:8000", ""])
    def test_no_other_name_for_it(self, http, host):
        assert http.get("/api/about", headers={"host": host}).status_code == 400

    PATHS = ("/", "/api", "/api/about", "/api/openapi.json", "/static/page.js", "/api/videos/0", "/nowhere")

    @pytest.fixture
    def guarded(self, searcher):
        return TestClient(
            create_app(searcher, token="open-sesame"), base_url="http://10.0.0.1", follow_redirects=False
        )

    def test_without_the_token_nothing(self, guarded):
        for path in self.PATHS:
            for extra in ({}, {"headers": {"authorization": "Bearer open"}}, {"params": {"token": "ö"}}):
                answer = guarded.get(path, **extra)
                assert answer.status_code == 401
                assert "Authorization: Bearer" in answer.json()["detail"]
            assert guarded.get(path, headers={"cookie": "dits_adapter_token=open"}).status_code == 401

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b" ",
            b"Bearer",
            b"Bearer ",
            b"open-sesame",
            b"Basic b3Blbi1zZXNhbWU=",
            b"Basic open-sesame",
            b"Bearer open-sesame x",
            b"Bearer,open-sesame",
            b"Bearer \xf6\xff\x80",
            b"\xff" * 9000,
            b"Bearer " * 999,
        ],
    )
    def test_odd_headers(self, guarded, value):
        for name in ("authorization", "cookie"):
            answer = guarded.get("/api/about", headers=[(name.encode(), value)])
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert guarded.get("/api/about", params={"token": value}).status_code == 401

    @pytest.mark.parametrize("token", ["zwei Worte", "schlüssel", "tab\there", "🎬"])
    def test_a_token_that_no_header_carries(self, searcher, token):
        with pytest.raises(InputError, match="an HTTP header carries neither"):
            create_app(searcher, token=token)

    @pytest.mark.parametrize("path", ["/", "/compare", "/collection", "/api", "/metrics", "/livez", "/healthz"])
    def test_watchers_ask_for_the_head_alone(self, http, guarded, path):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert guarded.head(path).status_code == (200 if path in ("/livez", "/healthz") else 401)

    def test_browsers_get_a_field_for_it(self, guarded):
        browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        for path in ("/", "/api", "/?query=a"):
            asked = guarded.get(path, headers=browser)
            assert (asked.status_code, asked.headers["www-authenticate"]) == (401, "Bearer")
            assert '<input name="token" type="password"' in asked.text
        for path in ("/api/about", "/static/page.js"):
            assert "a token is needed" in guarded.get(path, headers=browser).json()["detail"]

    def test_with_the_token(self, guarded):
        for scheme in ("Bearer ", "bearer ", "BEARER ", "Bearer   "):
            headers = {"authorization": f"{scheme}open-sesame"}
            assert guarded.get("/api/about", headers=headers).status_code == 200
        assert guarded.get("/api/about").status_code == 401
        entered = guarded.get("/", params={"token": "open-sesame", "query": "a dog"})
        assert (entered.status_code, entered.headers["location"]) == (303, "./?query=a+dog")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert guarded.get("/").status_code == guarded.get("/api/about").status_code == 200


class TestConnections:
    @pytest.fixture
    def address(self, searcher, monkeypatch):
        monkeypatch.setattr(server_module, "_HEAD_SECONDS", 0.5)
        server = server_module.make_server(create_app(searcher))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            yield listener.getsockname()
            server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()

    @staticmethod
    def connected(address, sent):
        """Connect and send at once; again where this machine was so slow that the server may have given up."""
        while True:
            started = time.monotonic()
            client = socket.create_connection(address, timeout=PATIENCE)
            with suppress(ConnectionError):
                client.sendall(sent)
            if time.monotonic() - started < server_module._HEAD_SECONDS / 2:
                return client
            client.close()

    HEAD = b"GET /api/about HTTP/1.1\r\nhost: localhost\r\n"

    @pytest.mark.parametrize("begun", [b"", b"G", HEAD, HEAD + b"\r\n" + HEAD])
    def test_a_head_that_does_not_end_is_not_waited_for(self, address, begun, monkeypatch):
        """One byte at a time keeps no connection open: neither the first request on it nor a later one."""
        received, data = b"", None
        with self.connected(address, begun) as client, suppress(ConnectionError):
            client.settimeout(0.05)
            while data != b"":
                try:
                    data = client.recv(1 << 16)
                    received += data
                except TimeoutError:
                    client.sendall(b"x" if begun else b"")
        assert received.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")
        monkeypatch.setattr(server_module, "_HEAD_SECONDS", PATIENCE)
        about = httpx.get(f"http://{address[0]}:{address[1]}/api/about", timeout=PATIENCE)
        assert about.status_code == 200

    def test_a_long_answer_is_not_cut(self, address, monkeypatch):
        about = Searcher.about
        monkeypatch.setattr(Searcher, "about", lambda self: (time.sleep(1), about(self))[1])
        with self.connected(address, self.HEAD + b"connection: close\r\n\r\n") as client:
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")

    def test_a_head_without_end_is_refused(self, address):
        with self.connected(address, b"GET /" + b"x" * 20_000) as client:
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.fixture(scope="module")
def place(library, adapter, tmp_path_factory):
    """Folder with an index of one clip."""
    folder = tmp_path_factory.mktemp("place")
    line = ["ingest", str(library / "clip-0.mp4"), "--encoder", str(adapter)]
    assert main([*line, "--store", str(folder / "video-index")]) == 0
    return folder


class TestCommand:
    @pytest.fixture
    def index(self, adapter, place, monkeypatch):
        monkeypatch.chdir(place)
        return ["serve", "--adapter", str(adapter), "--port", "0", "--no-browser"]

    SERVE = """
import sys, time
from dits_adapter.cli import main
from dits_adapter.serve import _server
from dits_adapter.serve._searcher import Searcher
_server._FINISH_SECONDS = 600  # those of a user may pass while the machine is busy
search = Searcher.compare
def slow(self, query, options):
    if query == "slow":
        print("searching", flush=True)
        time.sleep(1)
    return search(self, query, options)
Searcher.compare = slow
sys.exit(any([main([*sys.argv[1:], "--host", host]) for host in ("127.0.0.1", "0.0.0.0")]))
"""

    def test_serves_until_it_is_stopped(self, index):
        """One process, as its imports take seconds, serves this machine and then all machines.

        A search is under way when SIGTERM comes: it is answered, and the port is closed meanwhile.
        """
        environment = {name: value for name, value in os.environ.items() if name != "DITS_ADAPTER_TOKEN"}
        with subprocess.Popen(
            [sys.executable, "-c", self.SERVE, *index], stdout=subprocess.PIPE, text=True, env=environment
        ) as server:
            try:
                port = self.use(server.stdout.readline(), "127.0.0.1")
                assert server.stdout.readline() == "Ctrl+C ends it.\n"
                with ThreadPoolExecutor(1) as pool:
                    url = f"http://127.0.0.1:{port}/api/search?query=slow"
                    answer = pool.submit(httpx.get, url, timeout=PATIENCE)
                    assert server.stdout.readline() == "searching\n"
                    server.send_signal(signal.SIGTERM)
                    assert answer.result().status_code == 200
                    with pytest.raises(httpx.TransportError):
                        httpx.get(url)
                self.use(server.stdout.readline(), "0.0.0.0")
                server.send_signal(signal.SIGINT)
                assert server.wait(PATIENCE) == 0
            finally:
                server.kill()

    @staticmethod
    def use(line, host):
        port, token = re.search(r"http://[\w.-]+:(\d+)/(?:\?token=([\w-]+))?$", line.strip()).groups()
        assert (token is None) == (host == "127.0.0.1")
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, follow_redirects=True)
        answer = http.get("/api/search", params={"query": QUERY})
        assert answer.status_code == (200 if token is None else 401)
        if token is not None:
            opened = http.get("/", params={"token": token})
            assert "<title>Video search" in opened.text
        return port

    def test_what_does_not_work_is_said_at_once(self, index, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main([*index, "--port", str(port)]) == 1
            assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
        assert main([*index, "--port", "99999"]) == 1
        assert "--port is 99999; ports go from 1 to 65535" in capsys.readouterr().err
        assert main([*index, "--collection", "vidoes"]) == 1
        assert "it has videos" in capsys.readouterr().err
        assert main([*index, "--store", "nowhere"]) == 1
        assert "no Qdrant store is here" in capsys.readouterr().err

    def test_missing_packages(self, index, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        monkeypatch.delitem(sys.modules, "dits_adapter.serve._server")
        assert main(index) == 1
        assert 'pip install "dits-adapter[serve]"' in capsys.readouterr().err


def test_the_page_runs_in_a_server_of_ones_own(searcher, encoder, tmp_path):
    """`search_page`: the same application, from Python."""
    page = search_page(encoder, searcher.store, token="secret", feedback=tmp_path / "feedback.jsonl")
    with TestClient(page, base_url="http://search.example") as client:
        assert client.get("/api/about").status_code == 401
        about = client.get("/api/about?token=secret")
    assert about.status_code == 200
    assert about.json()["feedback"]["file"].endswith("feedback.jsonl")
    with pytest.raises(InputError, match="log_queries adds to the file of feedback"):
        search_page(encoder, searcher.store, log_queries=True)
