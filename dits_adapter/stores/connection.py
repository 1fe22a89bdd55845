"""How a Qdrant is reached: a server, a folder, memory or somebody's own client; its errors and its absences."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from json import JSONDecodeError
from os import PathLike
from pathlib import Path
from typing import TypeVar

import grpc  # type: ignore[import-untyped]
from qdrant_client import QdrantClient
from qdrant_client.client_base import QdrantBase
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.qdrant_remote import QdrantRemote

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.search import Steps

T = TypeVar("T")
TRANSIENT = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, grpc.RpcError)
"""What a client raises for an answer, or none, of a server; some of it passes."""
logger = logging.getLogger(__name__)

TIMEOUT = 60
"""Seconds for one request: uploads wait until the server has them on disk."""
PATIENCE = 60
"""Seconds for which writes are tried again while the server restarts or is overloaded."""
SEARCH_PATIENCE = 3
"""The same for searches: somebody waits for the answer, and a cluster has another node for it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first repetition, doubled from one to the next, up to the longest."""
OVERLOADED = (408, 429, 502, 503, 504)
"""HTTP answers of a server, or of what stands before it, that may be another a moment later."""
INCOMPLETE = re.compile(
    r"status: (Unavailable|DeadlineExceeded)|transport error|consensus operation|active replica"
)
"""What a cluster says, with status 500, while too few of its nodes are there; other errors 500 do not pass."""


class Connection:
    """A Qdrant that is connected to when it is needed.

    Args:
        location: a server's URL, a folder, ":memory:", or a `QdrantClient`, which is never closed. For a URL the
            API key comes from the environment variable QDRANT_API_KEY.

    Attributes:
        location: the same, for messages.
        remote: whether it is a server, through a connection of our own or somebody else's.
        folder: where its files are, if they are ours to open; None otherwise.
        place: equal where both are the same Qdrant, as far as can be told: a server may have several addresses.

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
        """Whether it is this process's memory: searched without an index, and gone with the process."""
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
                if not self.is_there():
                    raise StoreError(f"{self.location}: no Qdrant store is here. Ingest videos into it first.")
                self._client = self._connect()
        return self._client

    def is_there(self) -> bool:
        """Whether there is a store, as far as can be said without connecting: a folder may hold none.

        Raises:
            StoreError: the folder holds one of qdrant-client's local mode.
        """
        if self.folder is None:
            return True
        from dits_adapter.stores.edge import is_store

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
            # What this package needs of a server it checks itself, by whether the stamp was kept.
            return QdrantClient(url=self.location, api_key=key, timeout=TIMEOUT, check_compatibility=False)
        from dits_adapter.stores.edge import EdgeClient

        return EdgeClient(self.folder)

    def make_folder(self) -> None:
        """Let a folder become a store, but only one that holds nothing else."""
        if self._client is not None or self.folder is None or self.is_there():
            return
        try:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise StoreError(
                    f"{self.location} has other files in it and is no Qdrant store; give a new or empty folder."
                )
        except OSError as error:
            raise StoreError(f"{self.location}: no store can be made here ({error}).") from error
        self._client = self._connect()

    def explained(self) -> AbstractContextManager[None]:
        """Turn what the client raises into a StoreError that says what to do."""
        return explained(self.location)

    def run(self, steps: Steps[T]) -> T:
        """Make the requests of a search, again where the server is away for a moment, and return what it found.

        Raises:
            StoreError: as `explained`, and what the search itself raises.
        """
        with self.explained():
            try:
                method, arguments = next(steps)
                while True:
                    patience = Patience(self.location, SEARCH_PATIENCE)
                    try:
                        answer = _repeated(partial(getattr(self.client, method), **arguments), patience)
                    except Exception as error:
                        method, arguments = steps.throw(error)
                    else:
                        method, arguments = steps.send(answer)
            except StopIteration as done:
                return done.value

    def lasting(self, request: Callable[[], T]) -> T:
        """Make a request that may be made twice; while the server is away or overloaded, wait and repeat it.

        Raises:
            StoreError: the server refuses it, or is still away after `PATIENCE`.
        """
        with self.explained():
            return _repeated(request, Patience(self.location, PATIENCE))


def _server(client: QdrantBase) -> str | None:
    """Return the address of the server that a client talks to; None where it is in this process."""
    talking = client._client if isinstance(client, QdrantClient) else client  # it has no public name
    return str(talking.rest_uri) if isinstance(talking, QdrantRemote) else None


def _repeated(request: Callable[[], T], patience: Patience) -> T:
    while True:
        try:
            return request()
        except TRANSIENT as error:
            wait = patience.wait(error)
        time.sleep(wait)


class Patience:
    """How long the same request is made again and again, for a server that is away, restarts or is overloaded.

    Args:
        location: of the server, for the log.
        seconds: after which it ends.
    """

    def __init__(self, location: str, seconds: float) -> None:
        self._location = location
        self._pause, self._end = FIRST_PAUSE, time.monotonic() + seconds

    def wait(self, error: Exception) -> float:
        """Return for how many seconds to wait after this error; raise it where waiting will not help."""
        asked = float(getattr(error, "retry_after_s", 0))
        wait = max(asked, self._pause * random.uniform(0.75, 1.25))  # many clients should not come at once
        if not _passes(error) or time.monotonic() + wait > self._end:
            raise error
        logger.warning("%s is away or overloaded (%s); again in %.1f s", self._location, error, wait)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return wait


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, UnexpectedResponse):
        answer = error.content.decode("utf-8", "replace")
        return error.status_code in OVERLOADED or INCOMPLETE.search(answer) is not None
    if isinstance(error, grpc.RpcError):
        code = grpc.StatusCode
        passing = (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED)
        return error.code() in passing or INCOMPLETE.search(error.details() or "") is not None
    return True


@contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what the client raises into a StoreError that says what to do."""
    try:
        yield
    except (ResponseHandlingException, JSONDecodeError) as error:
        reason = getattr(error, "source", error)
        raise StoreError(
            f"{location} gives no usable answer ({reason}). Is a Qdrant server running there, and is the "
            "address right?"
        ) from error
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise StoreError(_refused(location)) from error
        answer = error.content.decode("utf-8", "replace")
        if INCOMPLETE.search(answer):
            raise StoreError(_incomplete(location, answer)) from error
        raise StoreError(f"{location} answers {error.status_code}: {answer[:300]}") from error
    except ResourceExhaustedResponse as error:
        raise StoreError(f"{location} is overloaded; try again in {error.retry_after_s} s.") from error
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise StoreError(_refused(location)) from error
        answer = error.details() or ""
        if INCOMPLETE.search(answer):
            raise StoreError(_incomplete(location, answer)) from error
        raise StoreError(f"{location} answers {error.code().name}: {answer}") from error
    except OSError as error:
        raise StoreError(
            f"{location}: reading or writing failed ({error}). Check the free space and the folder's permissions."
        ) from error


def _refused(location: str) -> str:
    return f"{location} refuses access: set QDRANT_API_KEY to a key that may do this."


def _incomplete(location: str, answer: str) -> str:
    return (
        f"{location}: too many nodes of the cluster are away. A search needs one copy of each shard, a write as "
        "many as the collection's write_consistency, and a new collection more than half of the nodes. Bring them "
        f"back and try again. It answers: {answer[:300]}"
    )
