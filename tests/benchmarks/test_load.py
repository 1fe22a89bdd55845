"""The load benchmark counts answers and failures alike; how fast they come is no test's business."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import load

STAGES = {"embed": 0.25, "adapt": 0.5, "store": 0.125, "map": 1.0}


@pytest.fixture
def server():
    """Server that answers every other request, and says which queries came."""
    asked, numbers = [], itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = json.dumps({"stages": STAGES}).encode()
            self.send_response(503 if next(numbers) % 2 else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def test_a_level_and_its_row(server):
    address, asked = server
    level = asyncio.run(load._ask(address, 3, 0.2))
    assert len(set(asked)) == len(asked) >= 3  # no text twice
    assert level.failed == len(asked) // 2
    assert level.stages == STAGES
    assert 0 < level.percentiles[50] <= level.percentiles[95] <= level.percentiles[99]
    assert 0 < level.rate < len(asked) / 0.2
    text = load.Load([level], {1: 10.0, 32: 90.0}, "demo-dits", 10_000, "a folder", {"processor": "P"}).markdown()
    assert "250 ms" in text
    assert "10 texts/s (1 a call) and 90 texts/s (32 a call)" in text
