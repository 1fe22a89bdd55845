"""Operation of the page for others: health, measurements, and an orderly end."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import signal
import threading
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from dits_adapter.cli._logs import logging_to_stderr
from dits_adapter.errors import StoreError
from dits_adapter.serve import _health as health_module
from dits_adapter.serve import _searcher as searcher_module
from dits_adapter.serve._app import create_app
from dits_adapter.serve._searcher import Searcher
from dits_adapter.serve._server import make_server
from tests.serve.conftest import HOME, QUERY
from tests.waiting import PATIENCE, wait_until


def read(http):
    """Return the measurements: values by name and labels."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def count(measured, route, status):
    return measured.get(("dits_adapter_request_seconds_count", *sorted((route, status))), 0)


class TestMetrics:
    def test_what_a_search_leaves(self, searcher):
        http = TestClient(create_app(Searcher(searcher.store, searcher.encoder)), base_url=HOME)
        secret = "a very private zebra"
        for query in (secret, secret, "another", " "):
            http.get("/api/search", params={"query": query})
        http.get("/api/search")
        http.get(f"/{secret}?token={secret}")
        http.get("/api/videos/some-private-id")
        http.get("/livez")
        measured = read(http)
        assert count(measured, "/api/search", "200") == 3
        assert count(measured, "/api/search", "400") == count(measured, "/api/search", "422") == 1
        assert count(measured, "/api/videos/{video_id}", "404") == count(measured, "other", "404") == 1
        assert count(measured, "/livez", "200") == 1
        for stage in ("embed", "adapt", "store", "map"):
            assert measured["dits_adapter_search_stage_seconds_count", stage] == 3
            assert measured["dits_adapter_search_stage_seconds_sum", stage] > 0
        assert (
            measured["dits_adapter_text_cache_total", "hit"],
            measured["dits_adapter_text_cache_total", "miss"],
        ) == (1, 2)
        assert measured["dits_adapter_errors_total", "InputError"] == 1
        assert measured["dits_adapter_errors_total", "RequestValidationError"] == 1
        assert measured["dits_adapter_embedding_queue",] == 0
        assert measured["dits_adapter_requests_in_flight",] == 1  # this one
        text = http.get("/metrics").text
        assert f'digest="{searcher.encoder.artifact.digest}"' in text
        assert 'dits_adapter_adapter_reloads_total{outcome="taken_up"} 0.0' in text
        assert "zebra" not in text
        assert "private" not in text

    def test_an_error_that_nobody_expected_is_counted(self, searcher, monkeypatch):
        http = TestClient(create_app(searcher), base_url=HOME, raise_server_exceptions=False)
        monkeypatch.setattr(Searcher, "about", lambda self: 1 / 0)
        assert http.get("/api/about").status_code == 500
        measured = read(http)
        assert measured["dits_adapter_errors_total", "ZeroDivisionError"] == 1
        assert count(measured, "/api/about", "500") == 1

    def test_stages_are_parts_of_the_whole(self, searcher, monkeypatch):
        clock = itertools.count()
        monkeypatch.setattr(searcher_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        answer = searcher.compare(QUERY)
        assert list(answer.stages) == ["embed", "adapt", "store", "map"]
        assert 0.5 * answer.seconds < sum(answer.stages.values()) <= answer.seconds

    def test_they_need_the_token_and_count_those_without(self, searcher):
        http = TestClient(create_app(searcher, token="open-sesame"), base_url="http://10.0.0.1")
        assert http.get("/metrics").status_code == 401
        http.headers["authorization"] = "Bearer open-sesame"
        assert count(read(http), "other", "401") == 1


class TestHealth:
    def test_a_store_that_fails(self, searcher, monkeypatch, caplog):
        now = [100.0]
        asked = []
        fails = False

        def answers(self):
            asked.append(1)
            if fails:
                raise StoreError("the store at http://secret:6333 is away")
            return 18

        monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(type(searcher.store), "count", answers)
        open_, guarded = (
            TestClient(create_app(searcher, token=token), base_url=HOME) for token in (None, "open-sesame")
        )
        with_token = {"authorization": "Bearer open-sesame"}
        for http in (open_, guarded):
            assert (http.get("/healthz").status_code, http.get("/healthz").json()) == (200, {"status": "ok"})
        assert len(asked) == 2  # of four requests
        fails = True
        now[0] += 10
        answer = open_.get("/healthz")
        assert (answer.status_code, "secret:6333 is away" in answer.json()["detail"]) == (503, True)
        answer = guarded.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert "is away" in guarded.get("/healthz", headers=with_token).json()["detail"]
        assert guarded.get("/livez").status_code == 200
        assert caplog.text.count("secret:6333 is away") == 2  # once for each application
        fails = False
        now[0] += 10
        assert guarded.get("/healthz").status_code == 200
        assert caplog.text.count("answers again") == 1

    def test_it_does_not_wait_for_searches(self, searcher, monkeypatch):
        """Forty searches take all threads of the application."""
        done = threading.Event()
        monkeypatch.setattr(Searcher, "about", lambda self: done.wait(PATIENCE) and 1 / 0)
        with TestClient(create_app(searcher), base_url=HOME, raise_server_exceptions=False) as http:
            threads = [threading.Thread(target=http.get, args=("/api/about",)) for _ in range(41)]
            for thread in threads:
                thread.start()
            try:
                wait_until(lambda: read(http)["dits_adapter_requests_in_flight",] == 42)
                assert http.get("/healthz").status_code == 200
                assert read(http)["dits_adapter_requests_in_flight",] == 42  # it was answered before all of them
            finally:
                done.set()
                for thread in threads:
                    thread.join()


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 8), (signal.SIGINT, 1)])
def test_a_person_who_ends_the_server_waits_less(searcher, number, seconds):
    """The fate of a request meanwhile: `test_app.TestCommand`, in a process."""
    server = make_server(create_app(searcher))
    server.handle_exit(number, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    assert server.config.timeout_graceful_shutdown == seconds


class TestLog:
    @pytest.fixture
    def logged(self, searcher, capsys, monkeypatch):
        """Function that makes some requests and one warning, and returns what a log of a format holds."""

        def log(format_):
            with logging_to_stderr(argparse.Namespace(log_format=format_)):
                http = TestClient(create_app(searcher, token="open-sesame"), base_url=HOME)
                http.get("/api/search", params={"query": "a private zebra", "token": "open-sesame"})
                http.get("/private?token=wrong-sesame")
                logging.getLogger("uvicorn.error").warning("a \n line", exc_info=ValueError("why"))
            http.get("/api/about")
            return capsys.readouterr().err

        return log

    def test_json(self, logged):
        text = logged("json")
        lines = [json.loads(line) for line in text.splitlines()]
        search, refused, warning = [line for line in lines if not line["logger"].startswith("httpx")]
        assert (search["route"], search["status"], search["method"]) == ("/api/search", 200, "GET")
        assert 0 < search["seconds"] < 60
        assert (refused["route"], refused["status"]) == ("other", 401)
        assert (warning["level"], warning["message"], "why" in warning["traceback"]) == (
            "warning",
            "a \n line",
            True,
        )
        assert not [secret for secret in ("zebra", "private", "sesame") if secret in text]

    def test_text_and_silence(self, logged):
        text = logged("text")
        assert "INFO dits_adapter.serve._metrics: GET /api/search 200" in text
        assert "sesame" not in text
        assert "GET" not in logged(None)
