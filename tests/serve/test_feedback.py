"""Feedback over HTTP: what is written, by whom, and what is refused; and adapters that are replaced meanwhile."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading

import httpx
import pytest
from fastapi.testclient import TestClient

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.adapters import AffineAdapter, AffineConfig
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.serve import _feedback as feedback_module
from dits_adapter.serve import _middleware as middleware_module
from dits_adapter.serve import _server as server_module
from dits_adapter.serve._app import create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import Searcher
from dits_adapter.sources.feedback import feedback_pairs, feedback_queries
from tests.serve.conftest import HOME, QUERY, lines
from tests.waiting import PATIENCE


def ask(http, query=QUERY, **params):
    return http.get("/api/search", params={"query": query, **params}).json()


def judge(http, answer, segment=None, side="adapted", **fields):
    body = {"search": answer["search"], "segment": segment, "side": side, **fields}
    return http.post("/api/feedback", json=body)


def test_without_the_option_there_is_no_feedback(searcher):
    http = TestClient(create_app(searcher), base_url=HOME)
    assert http.get("/api/about").json()["feedback"] is None
    answer = ask(http)
    assert answer["search"] is None
    assert judge(http, answer).status_code == 404


def test_a_choice_is_written_as_the_server_knows_it(http, file, searcher, encoder):
    assert http.get("/api/about").json()["feedback"] == {"file": str(file), "queries": False}
    answer = ask(http, strength=0.5, limit=4)
    assert lines(file) == []  # a search alone writes nothing
    third = answer["adapted"][2]
    said = judge(http, answer, third["id"], session="tab 1")
    assert (said.status_code, said.json()) == (200, {"search": answer["search"], "judgement": "chosen"})
    (line,) = lines(file)
    assert line["time"].endswith("Z")
    del line["time"]
    facts = {key: third[key] for key in ("id", "video_id", "path", "start", "end", "score", "probability")}
    assert line == {
        "kind": "judgement",
        "search": answer["search"],
        "session": "tab 1",
        "query": QUERY,
        "chosen": {**facts, "side": "adapted", "rank": 3},
        "shown": {side: [hit["id"] for hit in answer[side]] for side in ("plain", "adapted")},
        "probability_of_any": None,
        "adapter": {
            "name": encoder.name_or_path,
            "kind": "dits",
            "digest": encoder.artifact.digest,
            "strength": 0.5,
            "steps": 10,
        },
        "bias": {"plain": 0.0, "adapted": 0.0},
        "collection": "videos",
        "space": searcher.encoder.space.fingerprint,
        "filtered": False,
    }
    assert len(line["adapter"]["digest"]) == 64


def test_twice_is_once_and_undone_is_none(http, file):
    answer = ask(http)
    first, second = (hit["id"] for hit in answer["plain"][:2])
    url = f"/api/feedback/{answer['search']}"
    assert http.delete(url).json()["judgement"] is None  # nothing to take back
    for segment in (first, first, second, second):
        judge(http, answer, segment, "plain")
    for _ in range(2):
        assert http.delete(url).json() == {"search": answer["search"], "judgement": None}
    assert judge(http, answer).json()["judgement"] == "none"
    judge(http, answer, side=None)
    chosen = [line.get("chosen") and line["chosen"]["id"] for line in lines(file)]
    assert chosen == [first, second, None, None]
    assert [line["kind"] for line in lines(file)] == ["judgement", "judgement", "undo", "judgement"]


def test_only_what_was_on_the_screen_is_shown(http, file):
    answer = ask(http, words="mp4")
    judge(http, answer, answer["plain"][0]["id"], "plain", view="plain")
    (line,) = lines(file)
    assert list(line["shown"]) == ["plain"]
    assert line["filtered"] is True
    refused = judge(http, answer, answer["adapted"][0]["id"], "adapted", view="plain")
    assert (refused.status_code, "side has to name the ranking" in refused.text) == (400, True)


def test_what_was_not_shown_cannot_be_chosen(http, file):
    answer = ask(http, limit=1)
    for segment, side, status, message in (
        ("no-such-segment", "adapted", 400, "has no segment 'no-such-segment'"),
        (answer["plain"][0]["id"], None, 400, "side has to name"),
        (answer["plain"][0]["id"], "both", 422, "side: Input should be 'plain' or 'adapted'"),
        ("x" * 2000, "adapted", 422, "segment: String should have at most 1024 characters"),
    ):
        refused = judge(http, answer, segment, side)
        assert (refused.status_code, message in refused.json()["detail"]) == (status, True)
    for body in ({}, [], {"search": "x", "segment": None, "rank": 1}):
        assert http.post("/api/feedback", json=body).status_code == 422
    assert lines(file) == []


def test_a_search_that_is_forgotten_is_said(http, file, monkeypatch):
    monkeypatch.setattr(feedback_module, "_MOST_RESULTS", 30)
    old, new = ask(http), ask(http)
    refused = judge(http, old)
    assert (refused.status_code, refused.json()["detail"][:38]) == (410, "the server no longer knows this search")
    assert http.delete(f"/api/feedback/{old['search']}").status_code == 410
    assert judge(http, new).status_code == 200


def test_a_disk_that_is_full_is_a_sentence_and_the_choice_can_be_made_again(http, file, monkeypatch):
    answer = ask(http)
    file.unlink()
    file.parent.rmdir()
    refused = judge(http, answer)
    assert refused.status_code == 500
    assert "feedback.jsonl: cannot be written (No such file or directory)" in refused.json()["detail"]
    file.parent.mkdir()
    assert judge(http, answer).status_code == 200
    assert len(lines(file)) == 1  # the file is begun anew


class TestWhoMayWrite:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"content-type": "application/json"}, 200),
            ({"content-type": "application/json; charset=utf-8", "origin": HOME}, 200),
            (
                {"content-type": "application/json", "origin": "https://proxy", "sec-fetch-site": "same-origin"},
                200,
            ),
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/x-www-form-urlencoded"}, 415),
            ({}, 415),
            ({"content-type": "application/json", "origin": "https://evil.example"}, 403),
            ({"content-type": "application/json", "origin": "null"}, 403),
            ({"content-type": "application/json", "origin": HOME, "sec-fetch-site": "cross-site"}, 403),
            ({"content-type": "application/json", "origin": HOME, "sec-fetch-site": "same-site"}, 403),
            ({"content-type": "application/json", "host": "evil.example"}, 400),
        ],
    )
    def test_this_page_and_programs(self, http, file, headers, status):
        body = json.dumps({"search": ask(http)["search"], "segment": None})
        answer = http.post("/api/feedback", content=body, headers=headers)
        assert answer.status_code == status
        assert len(lines(file)) == (status == 200)
        assert "access-control-allow-origin" not in answer.headers

    def test_another_site_cannot_take_back(self, http, file):
        answer = ask(http)
        judge(http, answer)
        url = f"/api/feedback/{answer['search']}"
        assert http.delete(url, headers={"origin": "https://evil.example"}).status_code == 403
        assert len(lines(file)) == 1

    def test_nobody_without_the_token(self, searcher, file):
        app = create_app(searcher, token="open-sesame", feedback=FeedbackRecorder(file))
        http = TestClient(app, base_url="http://10.0.0.1")
        body = {"search": "x", "segment": None}
        assert http.post("/api/feedback", json=body).status_code == 401
        assert http.delete("/api/feedback/x").status_code == 401
        known = {"authorization": "Bearer open-sesame"}
        assert http.post("/api/feedback", json=body, headers=known).status_code == 410

    def test_large_bodies_are_refused(self, http, file):
        answer = ask(http)
        body = json.dumps({"search": answer["search"], "segment": None, "session": "x" * 20_000})
        for content in (body, iter([body.encode()])):  # with and without its length told
            refused = http.post("/api/feedback", content=content, headers={"content-type": "application/json"})
            assert (refused.status_code, refused.json()["detail"]) == (
                413,
                "the body is larger than 16,384 bytes.",
            )
        assert lines(file) == []

    def test_a_body_that_does_not_come_is_not_waited_for(self, searcher, file, monkeypatch):
        monkeypatch.setattr(middleware_module, "_BODY_SECONDS", 0.2)
        monkeypatch.setattr(server_module, "_HEAD_SECONDS", PATIENCE)
        server = server_module.make_server(create_app(searcher, feedback=FeedbackRecorder(file)))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                host, port = listener.getsockname()
                with socket.create_connection((host, port), timeout=PATIENCE) as client:
                    client.sendall(
                        b"POST /api/feedback HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                        b"content-length: 100\r\n\r\n{"
                    )
                    received = b""
                    while part := client.recv(1 << 16):
                        received += part
                assert received.startswith(b"HTTP/1.1 408 ")
                assert httpx.get(f"http://{host}:{port}/api/about", timeout=PATIENCE).status_code == 200
            finally:
                server.should_exit = True
                thread.join(PATIENCE)


def test_queries_are_logged_only_where_that_is_asked_for(searcher, file, caplog):
    http = TestClient(create_app(searcher, feedback=FeedbackRecorder(file, log_queries=True)), base_url=HOME)
    assert http.get("/api/about").json()["feedback"]["queries"] is True
    for query, strength in (("a dog", 1), ("a dog", 0.5), ("a cat", 1), ("a dog", 0)):
        ask(http, query, strength=strength)
    assert feedback_queries(file) == ["a dog", "a cat"]
    assert len(lines(file)) == 2
    file.unlink()
    file.parent.rmdir()
    with caplog.at_level(logging.WARNING):
        assert ask(http, "a cow")["adapted"]
    assert "a query was not logged" in caplog.text


def test_the_command_asks_for_a_file_first(tmp_path, capsys):
    line = ["serve", "--adapter", "demo-dits", "--port", "0", "--no-browser", "--store", str(tmp_path)]
    assert main([*line, "--log-queries"]) == 1
    assert "--log-queries adds to the file of --feedback" in capsys.readouterr().err
    (tmp_path / "other").write_text("x\n")
    assert main([*line, "--feedback", str(tmp_path / "other")]) == 1
    assert "holds something else than feedback" in capsys.readouterr().err


def test_many_at_a_time_lose_nothing(http, file):
    answers = [ask(http, f"query {n}", limit=2) for n in range(12)]
    threads = [
        threading.Thread(target=judge, args=(http, answer, answer["plain"][0]["id"], "plain"))
        for answer in answers
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(file)) == 12
    assert feedback_pairs(file, file.with_name("pairs.jsonl")).texts == 12


class TestReload:
    @pytest.fixture
    def folder(self, adapter, tmp_path):
        shutil.copytree(adapter, tmp_path / "adapter")
        clip = next(path for path in adapter.parent.iterdir() if path != adapter)
        (tmp_path / clip.name).symlink_to(clip)
        return tmp_path / "adapter"

    @pytest.fixture
    def reloader(self, client, folder):
        encoder = DITSQueryEncoder.from_pretrained(folder, backend="torch")
        searcher = Searcher(QdrantStore(client, space=encoder.space), encoder)
        searcher.load()
        return Reloader(searcher)

    @staticmethod
    def another(space):
        return Artifact(AffineAdapter(AffineConfig(width=32)).eval(), space)

    def test_a_replaced_adapter_is_taken_up_between_requests(self, reloader, folder):
        before = reloader.searcher
        assert reloader.check() is False
        assert reloader.searcher is before
        self.another(before.encoder.space).save(folder)
        assert reloader.check() is True
        assert reloader.searcher.about().adapter == "affine"
        found = reloader.searcher.compare(QUERY)
        assert found.digest == reloader.searcher.about().digest != before.about().digest
        assert [hit.id for hit in found.adapted] == [hit.id for hit in found.plain]
        assert before.compare(QUERY).steps == 10  # a request that is under way ends as it began
        assert reloader.check() is False

    def test_a_broken_one_is_refused_once_and_the_old_one_stays(self, reloader, folder, caplog):
        before = reloader.searcher
        self.another(before.encoder.space).save(folder)
        (folder / "adapter.safetensors").write_bytes(b"broken")
        for _ in range(3):
            assert reloader.check() is False
        assert reloader.searcher is before
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "is not taken up, the old adapter stays in use" in caplog.text
        shutil.rmtree(folder)
        for _ in range(3):
            assert reloader.check() is False
        assert len(caplog.records) == 2
        self.another(before.encoder.space).save(folder)
        assert reloader.check() is True

    def test_one_of_another_space_is_refused(self, reloader, folder, caplog):
        Artifact.load("demo-linear").save(folder)
        (folder.parent / "demo-clip").mkdir()
        assert reloader.check() is False
        assert "the old adapter stays in use" in caplog.text
        assert reloader.searcher.about().adapter == "dits"

    def test_the_application_looks_by_itself(self, reloader, folder, monkeypatch):
        monkeypatch.setattr("dits_adapter.serve._reload._SECONDS", 0.05)
        app = create_app(reloader.searcher)
        with TestClient(app, base_url=HOME) as http:
            self.another(reloader.searcher.encoder.space).save(folder)
            for _ in range(200):
                if http.get("/api/about").json()["adapter"] == "affine":
                    break
                threading.Event().wait(0.05)
            else:
                pytest.fail("the adapter was not taken up")
        assert not [thread for thread in threading.enumerate() if thread.name == "adapter-reload"]

    def test_bundled_adapters_are_not_watched(self, searcher):
        encoder = DITSQueryEncoder.from_pretrained("demo-linear", backend="torch")
        assert Reloader(Searcher(searcher.store, encoder)).check() is False
