"""Child process in which a decoder runs whose crash would end this process.

A decoder in C++ that meets a damaged file can abort, hang or take all memory. In a child this costs one file: the
call that was under way raises an ordinary error, and the next one gets a fresh child. Children are kept for the
next file; a thread that needs one has it to itself. They end with this process.

A child's memory is watched from here, where the system tells it (Linux): a limit of the address space, which the
system itself would keep, does not suit torch, which reserves far more than it uses.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from threading import Event
from typing import Any, TypeVar

from dits_adapter.errors import DITSError
from dits_adapter.video._index import FrameIndex
from dits_adapter.video._packages import error_line, require_package
from dits_adapter.video._reader import Frame, FrameReader
from dits_adapter.video.limits import DecodeLimits

__all__ = ["ChildReader", "call_in_child", "serve"]

_Result = TypeVar("_Result")

_GLANCE = 0.05
"""Seconds between two looks at the memory of a child."""

_LIBRARIES = 5e8
"""Bytes that a child takes before it opens a file: torch takes the most of them."""

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
"""Bytes of a page of memory."""

_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from dits_adapter.video._child import serve; serve()"
)


class ChildReader(FrameReader):
    """Reader whose decoder runs in a child process."""

    def __init__(
        self, decoder: str, reader: type[FrameReader], path: str, index: FrameIndex, limits: DecodeLimits
    ) -> None:
        require_package(decoder)
        self._seconds, self._memory = limits.seconds_for(os.path.getsize(path)), limits.memory
        self._child = _take()
        try:
            self._call(_open, reader, os.path.abspath(path), index, limits)
        except BaseException:
            self.close()
            raise

    def frame(self, number: int) -> Frame:
        return self._call(_frame, number)

    def close(self) -> None:
        with suppress(RuntimeError):
            self._call(_close)
        _give_back(self._child)

    def _call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return self._child.call(self._seconds, self._memory, function, *arguments)


def call_in_child(
    seconds: float,
    function: Callable[..., _Result],
    *arguments: object,
    memory: float = math.inf,
    stopped: Event | None = None,
) -> _Result:
    """Call a function of a module in a child process; `stopped`, when it is set, ends the call.

    Raises:
        DITSError: as the function raises it.
        RuntimeError: the function raises anything else, takes more than `seconds` or `memory` bytes, ends its
            process, or is ended.
    """
    child = _take()
    try:
        return child.call(seconds, memory, function, *arguments, stopped=stopped)
    finally:
        _give_back(child)


class _Child:
    """Child process that calls functions, one at a time."""

    def __init__(self) -> None:
        self.alive = True
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a decoder's complaints, which the error says in short
            start_new_session=True,  # Ctrl-C is for this process, which ends the child
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def call(
        self,
        seconds: float,
        memory: float,
        function: Callable[..., _Result],
        *arguments: object,
        stopped: Event | None = None,
    ) -> _Result:
        if not self.alive:
            raise RuntimeError("its process has ended")
        started = time.monotonic()
        try:
            pickle.dump((seconds, function, arguments), self._requests)
            self._requests.flush()
            self._wait(memory, stopped)
            error, result = pickle.load(self._replies)
        except BaseException as failure:  # an interrupted call leaves a reply that is nobody's
            code = self.end()
            if isinstance(failure, (OSError, EOFError, pickle.UnpicklingError)):
                raise RuntimeError(_death(code, seconds, time.monotonic() - started)) from None
            raise
        if error is not None:
            raise error
        return result

    def _wait(self, memory: float, stopped: Event | None) -> None:
        """Wait for the reply to a call.

        Raises:
            RuntimeError: the process takes more than `memory` bytes beside its libraries, or is to stop.
        """
        if not os.path.exists(f"/proc/{self._process.pid}/statm"):
            return
        while not wait([self._replies.fileno()], _GLANCE):
            if stopped is not None and stopped.is_set():
                self._process.kill()
                raise RuntimeError("was stopped")
            with open(f"/proc/{self._process.pid}/statm") as statm:
                _, resident, shared = (int(pages) for pages in statm.read().split()[:3])
            if (resident - shared) * _PAGE > _LIBRARIES + memory:
                self._process.kill()
                raise RuntimeError(f"takes more than {memory / 1e9:.1f} GB of memory")

    def end(self) -> int:
        """End the process; return its exit code."""
        self.alive = False
        with suppress(subprocess.TimeoutExpired):  # one that crashed needs a moment until it is gone
            self._process.wait(0.5)
        self._process.kill()
        with suppress(OSError):  # what was never sent
            self._requests.close()
        self._replies.close()
        return self._process.wait()


_idle: list[_Child] = []
"""Children that wait for the next file."""


def _take() -> _Child:
    try:
        return _idle.pop()
    except IndexError:
        return _Child()


def _give_back(child: _Child) -> None:
    if child.alive and child not in _idle:
        _idle.append(child)


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork has children of its own


def _death(code: int, seconds: float, elapsed: float) -> str:
    if code < 0:
        return f"crashes ({signal.Signals(-code).name})"
    if elapsed >= seconds:  # its watchdog ended it
        return f"takes more than {seconds:.0f} s"
    return f"ends its process (exit code {code})"


def serve() -> None:
    """Answer the calls of the process that started this one, until that ends."""
    with os.fdopen(os.dup(1), "wb") as replies, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # whatever a decoder prints is no reply
        while True:
            try:
                seconds, function, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            # Its watchdog needs neither the interpreter nor the decoder to be in a good state.
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            reply: tuple[Exception | None, Any] = (None, None)
            try:
                reply = (None, function(*arguments))
            except DITSError as error:
                reply = (error, None)
            except Exception as error:  # of a decoder's own kinds, which may not travel
                reply = (RuntimeError(error_line(error)), None)
            faulthandler.cancel_dump_traceback_later()
            pickle.dump(reply, replies)
            replies.flush()


_reader: FrameReader | None = None
"""Reader that is open in a child."""


def _open(reader: type[FrameReader], path: str, index: FrameIndex, limits: DecodeLimits) -> None:
    global _reader
    _reader = reader(path, index, limits)


def _frame(number: int) -> Frame:
    assert _reader is not None
    return _reader.frame(number)


def _close() -> None:
    global _reader
    if _reader is not None:
        _reader.close()
        _reader = None
