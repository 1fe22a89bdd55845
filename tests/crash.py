"""Processes that are killed, and file systems that fail, at one chosen change of the file system after the other.

The changes are those that Python reports to audit hooks, which no code escapes, `fsync` and the exchange of
folders: each is reported before it happens, so that to stop at each of them is also to stop after each.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dits_adapter import _files
from dits_adapter.errors import DITSError

__all__ = ["ENDED", "KILLED", "REFUSED", "at_every_change", "fork", "kill_between_the_renames"]

_CHANGES = {"os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "test.fsync", "test.exchange"}

ENDED, KILLED, REFUSED = 0, 9, 3
"""How an action ended: as if nothing had been; killed; with a `DITSError` or an `OSError`."""


def at_every_change(
    action: Callable[[], object], fault: int | None = None, lasting: bool = False
) -> Iterator[int]:
    """Run an action again and again in a process of its own, and stop it at its first, second, … last change.

    Args:
        action: changes files; the caller puts them back between two runs.
        fault: error number that the change is refused with; None kills the process instead.
        lasting: every later change is refused, too, but for those that remove.

    Yields:
        How the action ended, for each of its changes.
    """
    number, reached = 0, True
    while reached:
        number += 1
        code, reached = _run(action, number, fault, lasting)
        if reached:
            yield code
    assert number > 10, "the action changes files, so the harness must see that"


def kill_between_the_renames(save: Callable[[], object], folder: Path) -> None:
    """Replace a folder as where folders cannot be exchanged, and die when the old one is away."""

    def run() -> None:
        rename = os.rename
        _files._exchange = lambda *_: False
        os.rename = lambda *paths: os._exit(KILLED) if Path(paths[1]) == folder else rename(*paths)
        save()

    assert os.waitstatus_to_exitcode(os.waitpid(fork(run), 0)[1]) == KILLED
    assert not folder.exists()


def fork(action: Callable[[], object]) -> int:
    """Run an action in a process of its own, which ends with ENDED, REFUSED, or 1; return its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads of the test suite do not matter to the child
        process = os.fork()
    if process == 0:
        code = 1
        try:
            action()
            code = ENDED
        except (DITSError, OSError):
            code = REFUSED
        finally:
            os._exit(code)
    return process


def _run(action: Callable[[], object], number: int, fault: int | None, lasting: bool) -> tuple[int, bool]:
    """Run an action that is stopped at a change; return how it ended, and whether there was such a change."""
    reader, writer = os.pipe()

    def watched() -> None:
        _watch(number, fault, lasting, writer)
        action()

    process = fork(watched)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reached = pipe.read() == b"!"
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), reached


def _watch(number: int, fault: int | None, lasting: bool, writer: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes and event not in _CHANGES:
            return
        count += 1
        if count == number:
            os.write(writer, b"!")
            if fault is None:
                os._exit(KILLED)
        if fault is not None and (
            count == number or (lasting and count > number and event not in ("os.remove", "os.rmdir"))
        ):
            raise OSError(fault, os.strerror(fault))

    exchange = _files._exchange
    os.fsync = lambda handle: sys.audit("test.fsync")  # type: ignore[assignment]  # the kernel lives on
    _files._exchange = lambda *folders: (sys.audit("test.exchange"), exchange(*folders))[1]
    sys.addaudithook(hook)
