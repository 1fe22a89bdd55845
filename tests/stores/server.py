"""Several Qdrant servers: as a cluster, and behind one address; and one behind a connection that breaks."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

from qdrant_client import QdrantClient

from benchmarks.server import QdrantProcess, free_port
from tests.waiting import PATIENCE


def qdrant_client(url: str) -> QdrantClient:
    """Make a client of a server that may be slow; by itself one waits for five seconds."""
    return QdrantClient(url=url, timeout=int(PATIENCE), check_compatibility=False)


class QdrantCluster:
    """Runs several of them, which find one another through the first."""

    def __init__(self, binary: str, nodes: int = 3) -> None:
        self.nodes: list[QdrantProcess] = []
        first = ""
        for _ in range(nodes):
            port = free_port()
            uri = f"http://127.0.0.1:{port}"
            arguments = ["--uri", uri, *(["--bootstrap", first] if first else [])]
            settings = {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": str(port)}
            self.nodes.append(QdrantProcess(binary, *arguments, **settings))
            first = first or uri

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


class TcpProxy:
    """Passes each connection on to the first of these loopback ports that takes it: a load balancer's essence."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            for port in self._ports:
                with suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", port))
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=self._pass_on, args=ends, daemon=True).start()
                    break
            else:
                client.close()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class Reply(NamedTuple):
    """An answer in the place of the server's."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


Fault = Reply | str | None
"""Fate of a request: nothing (None), an answer, "before" or "after" (it breaks), "silence", or "drip"."""


class FlakyProxy:
    """Passes requests on to a Qdrant server, and has something happen to some of them.

    Args:
        server: URL of the server.
        fault: from the method and the path of a request what happens to it.

    Attributes:
        requests: method and path of all requests.
        most: bytes of a request beyond which it is refused; None for any.
        largest: bytes of the largest request that was not.
    """

    def __init__(self, server: str, fault: Callable[[str, str], Fault]) -> None:
        self.fault = fault
        self.requests: list[str] = []
        self.largest = 0
        self.most: int | None = None
        self.closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                path = self.path.partition("?")[0]
                proxy.requests.append(f"{self.command} {path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fault(self.command, path)
                if proxy.most is not None and len(body) > proxy.most:
                    fault = Reply(413, "<html>Request Entity Too Large</html>")
                else:
                    proxy.largest = max(proxy.largest, len(body))
                if fault == "silence":
                    proxy.closing.wait(30)
                if fault == "drip":
                    self.drip()
                if fault in ("before", "silence", "drip"):
                    return
                reply = fault if isinstance(fault, Reply) else self.pass_on(body)
                if fault == "after":
                    return
                with suppress(OSError):
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body.encode())

            def drip(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                with suppress(OSError):
                    while not proxy.closing.wait(0.02):
                        self.wfile.write(b" ")

            def pass_on(self, body: bytes) -> Reply:
                kept = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "accept-encoding")
                }
                request = urllib.request.Request(server + self.path, body or None, kept, method=self.command)
                try:
                    with urllib.request.urlopen(request) as answer:
                        return Reply(answer.status, answer.read().decode())
                except urllib.error.HTTPError as error:
                    return Reply(error.code, error.read().decode())

            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FlakyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
