"""Connection to a Qdrant: a server, a folder, memory or a client of the caller's; its errors and its absences."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar

from qdrant_client import QdrantClient
from qdrant_client.client_base import QdrantBase
from qdrant_client.qdrant_remote import QdrantRemote

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.qdrant._requests import RequestPlan, call
from dits_adapter.stores.qdrant._retry import (
    PATIENCE,
    SEARCH_PATIENCE,
    RetryPolicy,
    repeat_request,
    translate_errors,
)

__all__ = ["TIMEOUT", "Connection"]

T = TypeVar("T")

TIMEOUT = 60
"""Seconds for one request: uploads wait until the server has them on disk."""


class Connection:
    """A Qdrant that is connected to when it is needed.

    Args:
        location: a server's URL, a folder, ":memory:", or a `QdrantClient`, which is never closed. For a URL the
            API key comes from the environment variable QDRANT_API_KEY.

    Attributes:
        location: the same, for messages.
        remote: True for a server, through a connection of the package or of the caller.
        folder: folder of its files, if they are ours to open; None otherwise.
        place: equal for connections to the same Qdrant, as far as can be told: a server may have several
            addresses.

    Raises:
        InputError: something else, or a server's address that is no URL.
    """

    def __init__(self, location: str | PathLike[str] | QdrantBase) -> None:
        self._client: QdrantBase | None = None
        self.folder: Path | None = None
        self._connecting = threading.RLock()
        self._own = not isinstance(location, QdrantBase)
        self.remote = False
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
                    raise StoreError(f"{self.location}: no Qdrant store is here. Ingest videos into it first.")
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
            key = os.environ.get("QDRANT_API_KEY")
            # The store itself checks what it needs of a server: that the collection's metadata were kept.
            return QdrantClient(url=self.location, api_key=key, timeout=TIMEOUT, check_compatibility=False)
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

    def run(self, plan: RequestPlan[T], *, patience: float | None = None) -> T:
        """Make the requests of a plan, again where the server is away for a moment, and return its result.

        Args:
            plan: requests that may be made twice.
            patience: seconds for which each is repeated; by default `SEARCH_PATIENCE`.

        Raises:
            StoreError: as `translate_errors`, and what the plan itself raises.
        """
        with self.translate_errors():
            try:
                request = next(plan)
                while True:
                    policy = RetryPolicy(self.location, SEARCH_PATIENCE if patience is None else patience)
                    try:
                        answer = repeat_request(partial(call, self.client, request), policy)
                    except Exception as error:
                        request = plan.throw(error)
                    else:
                        request = plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result

    def with_retry(self, request: Callable[[], T]) -> T:
        """Make a request that may be made twice; while the server is away or overloaded, wait and repeat it.

        Raises:
            StoreError: the server refuses it, or is still away after `PATIENCE`.
        """
        with self.translate_errors():
            return repeat_request(request, RetryPolicy(self.location, PATIENCE))


def _server(client: QdrantBase) -> str | None:
    """Return the address of the server that a client talks to; None where it is in this process."""
    inner = client._client if isinstance(client, QdrantClient) else client  # it has no public name
    return str(inner.rest_uri) if isinstance(inner, QdrantRemote) else None
