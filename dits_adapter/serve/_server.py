"""HTTP server of the search page: uvicorn, with a bound on how long and how large a request's head may be."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any

from dits_adapter.errors import MissingExtraError

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError:
    raise MissingExtraError("uvicorn", "serve", "the search page") from None

__all__ = ["make_server", "run"]

_HEAD_SECONDS = 10.0
"""Seconds in which a request's head arrives, once the connection is open; uvicorn has no bound of its own."""

_HEAD_BYTES = 16 << 10
"""Largest head of a request: its address and headers. `CheckWrites` bounds bodies."""


_FINISH_SECONDS = 8
"""Time for the requests in flight after SIGTERM; container engines kill ten seconds after it."""


def make_server(app: Any) -> uvicorn.Server:
    """Make the server of an ASGI application.

    SIGTERM closes the port and gives the requests in flight eight seconds. Ctrl-C gives them one: the person who
    waits there would rather have the prompt than a video that some browser still reads.
    """
    return _Server(
        uvicorn.Config(
            app,
            http=_ImpatientProtocol,
            ws="none",
            log_config=None,  # as this process logs
            log_level="warning",
            access_log=False,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=_FINISH_SECONDS,
        )
    )


def run(app: Any, listener: socket.socket) -> None:
    """Serve an application on an open port until SIGTERM or Ctrl-C, as `make_server` says."""
    with suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Server that waits for requests in flight only a moment where a person ends it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT:
            self.config.timeout_graceful_shutdown = 1
        super().handle_exit(sig, frame)


class _ImpatientProtocol(H11Protocol):
    """Protocol that closes a connection on which a request takes too long to begin."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        """Start the clock where the rest of a head is awaited, unless it is running."""
        if self._is_answering():
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_HEAD_SECONDS, self._look_again)

    def _look_again(self) -> None:
        """Read what has arrived, in case it was this server that was late, and then close the connection."""
        self._deadline = self.loop.call_later(0, self._close)

    def _close(self) -> None:
        self._deadline = None
        if not self._is_answering():
            self.transport.close()

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
