"""Qdrant servers of our own, from the binary: ones that a test may kill and start again, alone or as a cluster."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class QdrantProcess:
    """Runs `binary` on a free loopback port, with a data folder of its own, and never as root.

    Args:
        binary: path of Qdrant's executable.
        arguments: given to it on its command line.
        settings: of its configuration, as environment variables.
    """

    def __init__(self, binary: str, *arguments: str, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qdrant-"))
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [os.path.abspath(binary), *arguments]
        self._environment = os.environ | {
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc_port),
            "QDRANT__TELEMETRY_DISABLED": "true",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it if it does not run, and wait until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, user=self._user, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text("utf-8", "replace")) from None
                time.sleep(0.05)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


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
