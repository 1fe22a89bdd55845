"""Connection to a Qdrant: a server, a folder, memory or a client of the caller's; its errors and its absences."""

from __future__ import annotations

import os
import re
import threading
from contextlib import AbstractContextManager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import httpx
from qdrant_client import QdrantClient
from qdrant_client.client_base import QdrantBase
from qdrant_client.qdrant_remote import QdrantRemote

from dits_adapter._secrets import secret
from dits_adapter.errors import InputError, MissingCollectionError, StoreError
from dits_adapter.stores.qdrant._requests import Request, RequestPlan, call
from dits_adapter.stores.qdrant._retry import (
    TIMEOUT,
    Patience,
    RetryPolicy,
    limit_answer,
    limit_request,
    repeat_request,
    translate_errors,
)

__all__ = ["CLIENT", "Connection", "api_key", "server_address"]

T = TypeVar("T")

CLIENT: dict[str, Any] = {
    "timeout": TIMEOUT,
    "check_compatibility": False,
    "headers": {"Accept-Encoding": "identity"},
    "limits": httpx.Limits(keepalive_expiry=2.0),
}
"""Options of a client for a server.

The store itself checks what it needs of a server: that the collection's metadata were kept. To compress an answer,
mostly numbers, costs more than all else about it. Connections stay open, on this machine too, but less long than
the 5 s after which Qdrant closes them.
"""

_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*(%.+)?", re.IGNORECASE)
"""Names and addresses of hosts, IPv6's among them."""


class Connection:
    """A Qdrant that is connected to when it is needed.

    Args:
        location: a server's URL, a folder, ":memory:", or a `QdrantClient`, which is never closed. For a URL the
            API key comes from the environment variable QDRANT_API_KEY.
        patience: seconds that a request to a server may take, with its repetitions; by default 120, and for what
            somebody waits for 3 with repetitions and 30 in all.

    Attributes:
        location: the same, for messages.
        remote: True for a server, through a connection of the package or of the caller.
        folder: folder of its files, if they are ours to open; None otherwise.
        place: equal for connections to the same Qdrant, as far as can be told: a server may have several
            addresses.

    Raises:
        InputError: something else, a server's address that is no URL, or a patience that is no time.
    """

    def __init__(self, location: str | PathLike[str] | QdrantBase, patience: float | None = None) -> None:
        self._client: QdrantBase | None = None
        self.folder: Path | None = None
        self._connecting = threading.RLock()
        self._own = not isinstance(location, QdrantBase)
        self._patience = {True: Patience.of_search(patience), False: Patience.of_work(patience)}
        self.remote = False
        self._key: str | None = None
        if isinstance(location, QdrantBase):
            self._client = location
            address = _server(location)
            self.remote = address is not None
            self.location = address or "the Qdrant of the given client"
            self.place: object = address or location
            return
        if not isinstance(location, (str, PathLike)):
            raise InputError(
                f"location is a {type(location).__name__}; it is a URL, a folder, ':memory:' or a QdrantClient."
            )
        self.location = os.fspath(location)
        if re.fullmatch(r"[\w.-]+:\d+/?", self.location):
            raise InputError(f"location {self.location!r}: write a server's address as http://{self.location}")
        self.remote = re.match(r"https?://", self.location, re.IGNORECASE) is not None
        if self.remote:
            self.location, self._key = server_address(self.location), api_key()
        if not self.remote and re.match(r"\w+://", self.location):
            raise InputError(f"location {self.location!r}: a server's address begins with http:// or https://.")
        if self.location != ":memory:" and not self.remote:
            self.folder = Path(location).absolute()
        self.place = self.folder or (self.location if self.remote else self)

    @property
    def in_memory(self) -> bool:
        """True for this process's memory: searched without an index, and gone with the process."""
        return self._own and self.location == ":memory:"

    def close(self) -> None:
        """Release the connection or the folder; a client that was passed in stays open."""
        if self._own and self._client is not None:
            self._client.close()
            self._client = None

    @property
    def client(self) -> QdrantBase:
        """The client, connected: a `QdrantClient`, or for a folder an `EdgeClient`, which does the same.

        Raises:
            StoreError: the folder holds no store, or another process has it open.
        """
        with self._connecting:
            if self._client is None:
                if not self.exists():
                    raise MissingCollectionError(
                        f"{self.location}: no Qdrant store is here. Ingest videos into it first."
                    )
                self._client = self._connect()
        return self._client

    def exists(self) -> bool:
        """Return whether there is a store, as far as can be said without connecting: a folder may hold none.

        Raises:
            StoreError: the folder holds one of qdrant-client's local mode.
        """
        if self.folder is None:
            return True
        from dits_adapter.stores.qdrant.edge._folder import is_store

        if (self.folder / "meta.json").is_file():
            raise StoreError(
                f"{self.location} was written by qdrant-client's local mode, which folders no longer use. Ingest "
                "the videos into another folder; or, to search this one as it is, pass "
                f"QdrantClient(path={self.location!r}) in Python."
            )
        return is_store(self.folder)

    def _connect(self) -> QdrantBase:
        if self.location == ":memory:":
            return QdrantClient(":memory:")
        if self.folder is None:
            hooks = {"request": [limit_request], "response": [limit_answer]}
            return QdrantClient(url=self.location, api_key=self._key, event_hooks=hooks, **CLIENT)
        from dits_adapter.stores.qdrant.edge._client import EdgeClient

        return EdgeClient(self.folder)

    def make_folder(self) -> None:
        """Make a store of a new or empty folder, and refuse one that holds anything else."""
        if self._client is not None or self.folder is None or self.exists():
            return
        try:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise StoreError(
                    f"{self.location} has other files in it and is no Qdrant store; give a new or empty folder."
                )
        except OSError as error:
            raise StoreError(f"{self.location}: no store can be made here ({error}).") from error
        self._client = self._connect()

    def translate_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the client into a `StoreError` that names the remedy."""
        return translate_errors(self.location)

    def run(self, plan: RequestPlan[T], *, hurried: bool = False) -> T:
        """Make the requests of a plan, each as `send` does, and return its result.

        Raises:
            StoreError: as `translate_errors`, and what the plan itself raises.
        """
        with self.translate_errors():
            try:
                request = next(plan)
                while True:
                    try:
                        answer = self._repeat(request, hurried)
                    except Exception as error:
                        request = plan.throw(error)
                    else:
                        request = plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result

    def send(self, request: Request[T], *, hurried: bool = False) -> T:
        """Make a request; while the server is away, overloaded or silent, wait and repeat it.

        Args:
            request: the request.
            hurried: somebody waits for the answer.

        Raises:
            StoreError: the server refuses it, or the patience is at its end.
        """
        with self.translate_errors():
            answer: T = self._repeat(request, hurried)
            return answer

    def _repeat(self, request: Request[T], hurried: bool) -> T:
        policy = RetryPolicy(self.location, self._patience[hurried])
        answer: T = repeat_request(partial(call, self.client, request), policy, remote=self.remote)
        return answer


def server_address(location: str) -> str:
    """Return the address of a server as it is shown and connected to.

    Raises:
        InputError: it is no URL, or has parts that are not used; a password in it is not shown.
    """
    try:
        url = httpx.URL(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(
            f"the server's address {_without_secrets(location)!r} is no URL ({error}); it is http://HOST:PORT or "
            "https://HOST:PORT."
        ) from None
    shown = _without_secrets(location)
    if not _HOST.fullmatch(url.host) or not 0 < (1 if url.port is None else url.port) < 65536:
        raise InputError(
            f"the server's address {shown!r} has no possible host, or a port that is not from 1 to 65535; it is "
            "http://HOST:PORT."
        )
    if url.userinfo or url.query or url.fragment:
        raise InputError(
            f"the server's address {shown!r} has a user, a query (?…) or a fragment (#…); it is "
            "http://HOST:PORT, and the key belongs in the environment variable QDRANT_API_KEY."
        )
    return location.rstrip("/")


def _without_secrets(location: str) -> str:
    return re.sub(r"[?#].*", "", re.sub(r"//[^/]*@", "//", location))


def api_key() -> str | None:
    """Return the key in the environment variable QDRANT_API_KEY, or in the file of QDRANT_API_KEY_FILE, or None.

    Raises:
        InputError: it has characters that no key has; it is not shown.
    """
    key = secret("QDRANT_API_KEY")
    if key is not None and (wrong := re.search(r"[^!-~]", key)):
        raise InputError(
            f"QDRANT_API_KEY: the character at position {wrong.start() + 1} is a blank, a line break or no ASCII "
            "letter, which no key has. Was it copied as a whole, and nothing else?"
        )
    return key


def _server(client: QdrantBase) -> str | None:
    """Return the address of the server that a client talks to; None where it is in this process."""
    inner = client._client if isinstance(client, QdrantClient) else client  # it has no public name
    return str(inner.rest_uri) if isinstance(inner, QdrantRemote) else None
