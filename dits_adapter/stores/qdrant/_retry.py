"""Requests to a Qdrant that is away, overloaded or silent: repeated for a while, then explained."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from dits_adapter._wording import printable
from dits_adapter.errors import InputError, StoreError

__all__ = [
    "TIMEOUT",
    "Patience",
    "RetryPolicy",
    "limit_answer",
    "limit_request",
    "limit_request_async",
    "repeat_request",
    "repeat_request_async",
    "translate_errors",
]

T = TypeVar("T")

_TRANSIENT = (ResponseHandlingException, UnexpectedResponse, QdrantException, grpc.RpcError)
"""Errors of a client for an answer, or none, of a server; some of them pass."""

_logger = logging.getLogger(__name__)

TIMEOUT = 30
"""Seconds that one attempt may take: uploads wait until the server has them on disk."""

_BRIEF = 3.0
"""Seconds for which a request is repeated that something else than Qdrant seems to answer."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first repetition, doubled from one to the next, up to the longest."""

_DAY = 86_400
"""Seconds; a server that asks to be left alone for longer means something else."""

_OVERLOADED = (408, 429, 502, 503, 504)
"""HTTP statuses of a server, or of a proxy before it, that may pass within a moment."""

_INCOMPLETE = re.compile(
    r"status: (Unavailable|DeadlineExceeded)|transport error|consensus operation|active replica|"
    r"Local shard \d+ not found"
)
"""Answers of a cluster, with status 500, while too few of its nodes are up; other errors 500 do not pass."""


@dataclass(frozen=True)
class Patience:
    """Seconds that a request may take.

    Attributes:
        repeated: seconds after its beginning in which it may be repeated. One that is broken off later is repeated
            once: a server that was stopped for a while drops the connections that waited.
        whole: seconds after which it is given up, together with all repetitions.

    Raises:
        InputError: not above zero, or not finite.
    """

    repeated: float
    whole: float

    def __post_init__(self) -> None:
        if not 0 < self.repeated <= self.whole < math.inf:
            raise InputError(f"patience is {self.repeated}; it is a number of seconds above 0.")

    @classmethod
    def of_work(cls, seconds: float | None) -> Patience:
        """Return the patience of whoever writes or reads much: a server may restart meanwhile."""
        return cls(120, 120) if seconds is None else cls(seconds, seconds)

    @classmethod
    def of_search(cls, seconds: float | None) -> Patience:
        """Return the patience of whoever waits for an answer, which another node of a cluster may give."""
        return cls(3, 30) if seconds is None else cls(seconds, seconds)


class RetryPolicy:
    """Pauses between repetitions of one request, to a server that is away, restarts, hangs or is overloaded.

    Args:
        location: location of the server, for the log.
        patience: seconds that the request may take.
    """

    def __init__(self, location: str, patience: Patience) -> None:
        now = _now()
        self._location = location
        self._pause = _FIRST_PAUSE
        self._waited = False
        self._last, self._end = now + patience.repeated, now + patience.whole
        self._brief = min(self._last, now + _BRIEF)

    @contextmanager
    def attempt(self, *, remote: bool) -> Iterator[None]:
        """Make one attempt within the time that is left; see `limit_request`.

        Args:
            remote: True for a server: whatever its client stumbles over is an answer that Qdrant does not give.
        """
        token = _end.set(self._end)
        try:
            yield
        except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            if not remote or isinstance(error, InputError):
                raise
            raise ResponseHandlingException(error) from error
        finally:
            _end.reset(token)

    def wait(self, error: Exception) -> float:
        """Return for how many seconds to wait after this error; raise it where waiting will not help."""
        wait = max(_retry_after(error), self._pause * random.uniform(0.75, 1.25))  # many should not come at once
        now = _now()
        late = not self._waited and now + self._pause >= self._last
        last = self._brief if _is_foreign(error) else self._end if late else self._last
        if not _passes(error) or now + wait >= last:
            raise error
        _logger.warning(
            "%s is away or overloaded (%s); again in %.1f s", self._location, " ".join(str(error).split()), wait
        )
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._waited = True
        return wait


def repeat_request(request: Callable[[], T], policy: RetryPolicy, *, remote: bool) -> T:
    """Make a request, and again as the policy says while the server is away, silent or overloaded."""
    while True:
        try:
            with policy.attempt(remote=remote):
                return _require_answer(request())
        except _TRANSIENT as error:
            wait = policy.wait(error)
        _sleep(wait)


async def repeat_request_async(request: Callable[[], Awaitable[T]], policy: RetryPolicy) -> T:
    """Do what `repeat_request` does with a server, for an asynchronous client."""
    while True:
        try:
            with policy.attempt(remote=True):
                return _require_answer(await request())
        except _TRANSIENT as error:
            wait = policy.wait(error)
        await _sleep_async(wait)


def _require_answer(answer: T) -> T:
    if answer is None:  # what some methods of the client make of an object without a result
        raise ValueError("an object without a result")
    return answer


_now: Callable[[], float] = time.monotonic
_sleep: Callable[[float], None] = time.sleep
_sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep

_end: ContextVar[float | None] = ContextVar("end", default=None)
"""Time at which the request under way is given up; None for a caller's own, which keeps the client's timeout."""


def limit_request(request: httpx.Request) -> None:
    """Limit each step of a request to the time that is left for all of it; a hook of httpx.

    The client itself has one timeout for all requests.
    """
    if (end := _end.get()) is not None:
        seconds = max(0.01, min(TIMEOUT, end - _now()))
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)


def limit_answer(response: httpx.Response) -> None:
    """Give up an answer that comes without a pause and has no end; a hook of httpx, beside `limit_request`."""
    if (end := _end.get()) is not None and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _TimedStream(response.stream, end)


class _TimedStream(httpx.SyncByteStream):
    """Body of an answer that has to be whole by a certain time."""

    def __init__(self, stream: httpx.SyncByteStream, end: float) -> None:
        self._stream = stream
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            if _now() > self._end:
                raise httpx.ReadTimeout("the answer has no end")
            yield part

    def close(self) -> None:
        self._stream.close()


async def limit_request_async(request: httpx.Request, send: Callable[[httpx.Request], Any]) -> httpx.Response:
    """Do what `limit_request` and `limit_answer` do, as a middleware of an asynchronous qdrant_client."""
    limit_request(request)
    end = _end.get()
    try:
        response: httpx.Response = await asyncio.wait_for(send(request), None if end is None else end - _now())
    except asyncio.TimeoutError:
        raise ResponseHandlingException(httpx.ReadTimeout("the answer has no end")) from None
    return response


def _retry_after(error: Exception) -> float:
    """Return for how many seconds the server asks to be left alone, in a header of seconds or of a date."""
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    asked = getattr(error, "retry_after_s", None) or headers.get("Retry-After")
    if asked is None and isinstance(error, QdrantException):  # the client reads no date, and quotes it
        asked = str(error).partition("integer: ")[2]
    try:
        return max(0.0, float(asked or 0))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(str(asked))
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (date - datetime.now(date.tzinfo and timezone.utc)).total_seconds())


def _passes(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _OVERLOADED or _INCOMPLETE.search(_answer(error)) is not None
    if isinstance(error, grpc.RpcError):
        code = grpc.StatusCode
        passing = (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED)
        return error.code() in passing or _INCOMPLETE.search(error.details() or "") is not None
    cause: BaseException | None = getattr(error, "source", error)
    if isinstance(cause, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
        return False
    while cause is not None:
        if isinstance(cause, ssl.SSLError):  # the certificate stays as it is
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _is_foreign(error: Exception) -> bool:
    """Return whether the answer is none of Qdrant's."""
    return isinstance(error, ResponseHandlingException) and not isinstance(error.source, httpx.HTTPError)


def _answer(error: UnexpectedResponse) -> str:
    """Return the text of an answer, in one line; of Qdrant's JSON only what it says about the error."""
    try:
        answer = error.structured()["status"]["error"]
    except (ValueError, LookupError, TypeError):
        answer = error.content.decode("utf-8", "replace")
    return printable(" ".join(str(answer).split()))


@contextmanager
def translate_errors(location: str) -> Iterator[None]:
    """Turn errors of the client into a `StoreError` that names the remedy."""
    try:
        yield
    except ResponseHandlingException as error:
        raise StoreError(_no_answer(location, error.source)) from error
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise StoreError(_refused(location)) from error
        answer = _answer(error)
        if _INCOMPLETE.search(answer):
            raise StoreError(_incomplete(location, answer)) from error
        to = "" if error.headers is None else error.headers.get("Location", "").partition("?")[0]
        raise StoreError(
            f"{location} answers {error.status_code}{f' and points to {to}' if to else ''}: {answer[:300]}"
        ) from error
    except QdrantException as error:
        after = _retry_after(error)
        when = f"in {after:.0f} s" if 0 < after < _DAY else "later"
        message = error.message if isinstance(error, ResourceExhaustedResponse) else "Too many requests"
        raise StoreError(f"{location} is overloaded ({message}); try again {when}.") from error
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise StoreError(_refused(location)) from error
        answer = error.details() or ""
        if _INCOMPLETE.search(answer):
            raise StoreError(_incomplete(location, answer)) from error
        raise StoreError(f"{location} answers {error.code().name}: {answer}") from error
    except OSError as error:
        raise StoreError(
            f"{location}: reading or writing failed ({error}). Check the free space and the folder's permissions."
        ) from error


def _no_answer(location: str, reason: Exception) -> str:
    if isinstance(reason, httpx.TimeoutException):
        return (
            f"{location} does not answer in time: it is overloaded, or hangs. Try again, or wait longer: "
            "patience=… in Python, --patience on the command line, in seconds."
        )
    if isinstance(reason, httpx.HTTPError):
        answer = str(reason) or type(reason).__name__
    else:
        answer = f"what it answers is none of Qdrant's: {' '.join(str(reason).split())[:200]}"
    return (
        f"{location} gives no usable answer ({answer}). Is a Qdrant server running there, and is the address "
        "right?"
    )


def _refused(location: str) -> str:
    return f"{location} refuses access: set QDRANT_API_KEY to a key that may do this."


def _incomplete(location: str, answer: str) -> str:
    return (
        f"{location}: too many nodes of the cluster are away. A search needs one copy of each shard, a write as "
        "many as the collection's write_consistency, and a new collection more than half of the nodes. Bring them "
        f"back and try again. It answers: {answer[:300]}"
    )
