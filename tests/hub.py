"""Fake of the Hugging Face hub on loopback: what huggingface_hub asks of it, from repositories in memory.

Imitated: addresses of files (`resolve`) by branch, tag, commit and pull request, with commit, ETag and sizes;
small files behind a redirect to the hub itself, large ones behind one to another host; info and tree of the API;
its error codes. Not imitated: Xet, ranges, pages of long lists, uploads, retry headers, data sets and spaces.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.waiting import PATIENCE

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pt")


@dataclass
class FakeRepository:
    """Files by name of each commit, and commits by branch, tag or pull request."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], reference: str = "main") -> str:
        digest = hashlib.sha1(repr((reference, sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.references[reference] = digest
        return digest

    def find(self, revision: str) -> str | None:
        return self.references.get(revision, revision if revision in self.commits else None)


@dataclass
class FakeHub:
    """Hub that answers, or does not, as its attributes say.

    `requests` has method, address and authorization of each request, `downloaded` the files that were sent.
    """

    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    api: bool = True  # False: a mirror that knows nothing but addresses of files
    status: int = 0  # of every answer, if not 0
    delay: float = 0.0  # seconds before each answer
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    downloaded: list[str] = field(default_factory=list)
    port: int = 0
    _server: ThreadingHTTPServer | None = None
    _connections: list[socket.socket] = field(default_factory=list)

    def add(self, name: str, files: Mapping[str, bytes], reference: str = "main") -> str:
        return self.repositories.setdefault(name, FakeRepository()).commit(files, reference)

    def start(self) -> None:
        class Handler(_Handler):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def go_away(self) -> None:
        """Answer nothing more, on connections that are open neither."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def forget_requests(self) -> None:
        self.requests.clear()
        self.downloaded.clear()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def setup(self) -> None:
        super().setup()
        self.hub._connections.append(self.connection)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Authorization")))
        time.sleep(hub.delay)
        if hub.status:
            return self._send(hub.status, b"refused")
        if path.startswith("/cdn/"):
            name, commit, file = path.removeprefix("/cdn/").split("//")
            return self._send_file(file, hub.repositories[name].commits[commit][file], {})
        if path.startswith("/api/resolve-cache/models/"):
            owner, name, commit, file = path.removeprefix("/api/resolve-cache/models/").split("/", 3)
            content = hub.repositories[f"{owner}/{name}"].commits[commit][file]
            return self._send_file(file, content, {"X-Repo-Commit": commit})
        if path.startswith("/api/"):
            return self._send_info() if hub.api else self._send(404, b"no such page")
        name, _, rest = path.strip("/").partition("/resolve/")
        return self._resolve(name, rest)

    def _resolve(self, name: str, rest: str) -> None:
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization")
        if repository is None:
            return self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        words = rest.split("/")
        length = 3 if words[0] == "refs" else 1
        commit, file = repository.find("/".join(words[:length])), "/".join(words[length:])
        if commit is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {words[0]}")
        if repository.gated and token != "Bearer hf_accepted":
            return self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        headers = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", headers)
        if file.endswith(LARGE):
            digest = _digest(content)
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
            place = f"http://localhost:{self.hub.port}/cdn/{name}//{commit}//{file}"
            return self._send(302, b"", headers | {"Location": place})
        if self.hub.api:
            place = f"/api/resolve-cache/models/{name}/{commit}/{file}"
            return self._send(307, b"", headers | {"Location": place})
        return self._send_file(file, content, headers)

    def _send_file(self, file: str, content: bytes, headers: Mapping[str, str]) -> None:
        if self.command == "GET":
            self.hub.downloaded.append(file)
        self._send(200, content, {"ETag": f'"{_digest(content)}"', **headers})

    def _send_info(self) -> None:
        owner, name, *rest = map(unquote, urlsplit(self.path).path.removeprefix("/api/models/").split("/"))
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        commit = repository.find(rest[1] if rest else "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        files = repository.commits[commit]
        if rest[:1] != ["tree"]:
            listed: Any = {
                "id": f"{owner}/{name}",
                "sha": commit,
                "siblings": [{"rfilename": file} for file in files],
            }
        else:
            listed = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
                if file.startswith("".join(f"{part}/" for part in rest[2:]))
            ]
            if not listed:
                return self._refuse(404, "EntryNotFound", "not found", {"X-Repo-Commit": commit})
        return self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] = {}) -> None:
        self._send(status, message.encode(), {"X-Error-Code": code, "X-Error-Message": message, **headers})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def running_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a fake hub, and point huggingface_hub in this process to it and to an empty cache."""
    from huggingface_hub import close_session, constants, hf_api

    hub = FakeHub()
    hub.start()
    endpoint = f"http://127.0.0.1:{hub.port}"
    monkeypatch.setattr("dits_adapter._hub._PATIENCE", PATIENCE)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", PATIENCE)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)
    try:
        yield hub
    finally:
        hub.go_away()
        close_session()
