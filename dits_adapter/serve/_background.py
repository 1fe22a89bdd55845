"""`Background`: a value that a thread computes when it is asked for, and that is kept for some minutes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dits_adapter.errors import DITSError

__all__ = ["Background", "Progress", "State", "Stopped"]

_Value = TypeVar("_Value")

_logger = logging.getLogger(__name__)

_KEPT_SECONDS, _CHANGED_SECONDS, _RETRY_SECONDS = 600.0, 30.0, 10.0
"""Time for which a value is kept; for which one is kept whose subject has changed; and after which one that failed
is computed again."""

_LONGEST_PAUSE = 0.2


class Stopped(Exception):
    """Computation that nobody waits for any more."""


@dataclass(frozen=True)
class State(Generic[_Value]):
    """State of a value.

    Attributes:
        value: the value; None before the first one is there. While it is computed anew, that of before.
        working: True while it is computed.
        done, total: how far the computation is; a total of 0 is not known.
        error: the reason why it could not be computed when that was tried last; "" where it could.
        at: time at which the value was ready, in seconds of `time.time`.
    """

    value: _Value | None = None
    working: bool = False
    done: int = 0
    total: int = 0
    error: str = ""
    at: float | None = None


class Progress:
    """Progress of a computation that leaves half of its time to others.

    Args:
        tell: called with the numbers that are done, and of all.
        stopped: set when nobody waits any more.
    """

    def __init__(self, tell: Callable[[int, int], None], stopped: threading.Event) -> None:
        self._tell = tell
        self._stopped = stopped
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell how far the computation is, and pause for as long as it has run since the last call.

        Raises:
            Stopped: the computation is to end.
        """
        self._tell(done, total)
        if self._stopped.wait(min(time.monotonic() - self._last, _LONGEST_PAUSE)):
            raise Stopped
        self._last = time.monotonic()


class Background(Generic[_Value]):
    """Value that a thread computes when it is asked for; those who ask never wait.

    Args:
        compute: computes the value; it is called with a `Progress`, which it calls often.
        name: noun for the value, of which its thread is named.
    """

    def __init__(self, compute: Callable[[Progress], _Value], name: str) -> None:
        self._compute = compute
        self._name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._subject: Hashable = None
        self._version: Hashable = None
        self._state: State[_Value] = State()
        self._tried = 0.0

    def close(self) -> None:
        """End the computation at its next step."""
        with self._lock:
            self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self, subject: Hashable, version: Hashable = None) -> State[_Value]:
        """Return the state of the value, which is computed where it is missing, old, or of another subject.

        Args:
            subject: what the value is of; that of another subject is never shown.
            version: state of the subject; a value of another one is shown while it is computed anew.
        """
        with self._lock:
            state, age = self._state, time.monotonic() - self._tried
            kept = _RETRY_SECONDS if state.error else _KEPT_SECONDS
            if version != self._version:
                kept = min(kept, _CHANGED_SECONDS)
            other = subject != self._subject
            if (other or age > kept) and not state.working and not self._stopped.is_set():
                self._subject, self._version, self._tried = subject, version, time.monotonic()
                self._state = State(working=True) if other else replace(state, working=True, done=0, total=0)
                self._pool.submit(self._run)
            return self._state

    def _run(self) -> None:
        def tell(done: int, total: int) -> None:
            with self._lock:
                self._state = replace(self._state, done=done, total=total)

        try:
            value = self._compute(Progress(tell, self._stopped))
            state = State(value, at=time.time())
        except Stopped:
            return
        except Exception as error:  # of any kind: those who ask must not wait forever
            if not isinstance(error, DITSError):
                _logger.exception("the %s cannot be computed", self._name)
            reason = (
                str(error) if isinstance(error, DITSError) else f"it failed ({type(error).__name__}); see the log."
            )
            state = replace(self._state, working=False, error=reason)
        with self._lock:
            self._state, self._tried = state, time.monotonic()
