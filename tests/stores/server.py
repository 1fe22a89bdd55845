"""Several Qdrant servers: as a cluster, and behind one address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.server import QdrantProcess, free_port


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
