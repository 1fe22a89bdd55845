"""Requests to a Qdrant that is away or overloaded: repeated for a while, then explained."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from dits_adapter.errors import StoreError

__all__ = ["PATIENCE", "SEARCH_PATIENCE", "TRANSIENT", "RetryPolicy", "repeat_request", "translate_errors"]

T = TypeVar("T")

TRANSIENT = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, grpc.RpcError)
"""Errors of a client for an answer, or none, of a server; some of them pass."""

_logger = logging.getLogger(__name__)

PATIENCE = 60
"""Seconds for which writes are tried again while the server restarts or is overloaded."""

SEARCH_PATIENCE = 3
"""Seconds for which searches are tried again: few, since a user waits and a cluster has another node."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first repetition, doubled from one to the next, up to the longest."""

_OVERLOADED = (408, 429, 502, 503, 504)
"""HTTP statuses of a server, or of a proxy before it, that may pass within a moment."""

_INCOMPLETE = re.compile(
    r"status: (Unavailable|DeadlineExceeded)|transport error|consensus operation|active replica"
)
"""Answers of a cluster, with status 500, while too few of its nodes are up; other errors 500 do not pass."""


def repeat_request(request: Callable[[], T], policy: RetryPolicy) -> T:
    """Make a request, and again as the policy says while the server is away or overloaded."""
    while True:
        try:
            return request()
        except TRANSIENT as error:
            wait = policy.wait(error)
        time.sleep(wait)


class RetryPolicy:
    """Pauses between repetitions of one request, to a server that is away, restarts or is overloaded.

    Args:
        location: location of the server, for the log.
        seconds: for which it is repeated.
    """

    def __init__(self, location: str, seconds: float) -> None:
        self._location = location
        self._pause, self._end = _FIRST_PAUSE, time.monotonic() + seconds

    def wait(self, error: Exception) -> float:
        """Return for how many seconds to wait after this error; raise it where waiting will not help."""
        least = float(getattr(error, "retry_after_s", 0))
        wait = max(least, self._pause * random.uniform(0.75, 1.25))  # many clients should not come at once
        if not _passes(error) or time.monotonic() + wait > self._end:
            raise error
        _logger.warning("%s is away or overloaded (%s); again in %.1f s", self._location, error, wait)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return wait


def _passes(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(error, UnexpectedResponse):
        answer = error.content.decode("utf-8", "replace")
        return error.status_code in _OVERLOADED or _INCOMPLETE.search(answer) is not None
    if isinstance(error, grpc.RpcError):
        code = grpc.StatusCode
        passing = (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED)
        return error.code() in passing or _INCOMPLETE.search(error.details() or "") is not None
    return True


@contextmanager
def translate_errors(location: str) -> Iterator[None]:
    """Turn errors of the client into a `StoreError` that names the remedy."""
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
        if _INCOMPLETE.search(answer):
            raise StoreError(_incomplete(location, answer)) from error
        raise StoreError(f"{location} answers {error.status_code}: {answer[:300]}") from error
    except ResourceExhaustedResponse as error:
        raise StoreError(f"{location} is overloaded; try again in {error.retry_after_s} s.") from error
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


def _refused(location: str) -> str:
    return f"{location} refuses access: set QDRANT_API_KEY to a key that may do this."


def _incomplete(location: str, answer: str) -> str:
    return (
        f"{location}: too many nodes of the cluster are away. A search needs one copy of each shard, a write as "
        "many as the collection's write_consistency, and a new collection more than half of the nodes. Bring them "
        f"back and try again. It answers: {answer[:300]}"
    )
