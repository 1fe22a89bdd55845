"""Qdrant server from the binary, for measurements and tests that kill and restart the server."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

_PATIENCE = 180.0
"""Seconds in which a server is ready, on a busy machine."""


def free_port() -> int:
    """Return a loopback port that is free, and that the system gives to nobody who asks for any port."""
    while True:
        port = random.SystemRandom().randint(10_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class QdrantProcess:
    """Qdrant process on a free loopback port, with a data folder of its own, and never as root.

    Args:
        binary: path of Qdrant's executable.
        arguments: arguments of the command line.
        settings: settings of Qdrant, as environment variables.

    Raises:
        RuntimeError: the process ends, or is not ready after minutes, each of three times; the message is the log.
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
        """Id of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server if it does not run, and wait until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(3):  # a node of a cluster ends where the first one does not answer within seconds
            with open(self.folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    self._command, cwd=self.folder, env=self._environment, user=self._user, stdout=log, stderr=log
                )
            if self._becomes_ready(self._process):
                return
        raise RuntimeError((self.folder / "log").read_text("utf-8", "replace"))

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server is ready, or has ended."""
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return True
            except OSError:
                time.sleep(0.05)
        process.kill()
        process.wait()
        return False

    def kill(self) -> None:
        """Kill the server as a power cut would; the data stay for another start."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder)
