"""Frame around every command: what goes wrong in one sentence, and streams that never fail.

`guard(name, run)` runs a command and returns its exit code, `guarded(name)` does so for a `main`; `write(text)`,
and `show(text)` for people, print what a command has to say.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import ParamSpec

from dits_adapter._extras import name_missing_extra
from dits_adapter._wording import complaints, printable
from dits_adapter.errors import DITSError, InputError

__all__ = ["EXIT_CODES", "guard", "guarded", "show", "write"]

EXIT_CODES = {
    0: "done",
    1: "an error, in one sentence on stderr",
    2: "wrong usage of the command line",
    3: "done, but not with all files or videos; the report names them",
    4: "trained, but not better than what there is: nothing was written",
    130: "stopped (Ctrl-C or SIGTERM)",
    141: "the reader of the output went away, as with `| head`",
}
"""Meaning of each exit code."""

_P = ParamSpec("_P")

_DEBUG = "DITS_ADAPTER_DEBUG"

_CAUSES = {
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "a file is needed here, and this is a folder",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EEXIST: "it is there already",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "the memory does not suffice",
    errno.EIO: "the device fails to read or write",
    errno.ETXTBSY: "the file is in use",
}
"""Clauses for the errors of the operating system that users meet; others have its own words."""


def guard(name: str, run: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command and return its exit code; whatever goes wrong is one sentence on stderr.

    Args:
        name: name of the command, which begins each sentence.
        run: the command, from the parsing of its arguments on.
        debug: print the traceback, too; the environment variable DITS_ADAPTER_DEBUG=1 does the same.

    Returns:
        A key of `EXIT_CODES`.
    """
    debug = debug or os.environ.get(_DEBUG, "0") not in ("", "0")
    _prepare_streams()
    with _warnings_as_sentences(name), _termination_as_interrupt():
        try:
            _require_working_directory()
            with name_missing_extra(name):
                code = run()
            sys.stdout.flush()  # fails here, where it can be said, rather than when the interpreter ends
            return code
        except SystemExit:  # of argparse, which does not look whether its help was written
            if unwritten := _drop_output():
                return _report(name, unwritten, unwritten, debug)
            raise
        except (Exception, KeyboardInterrupt) as error:
            return _report(name, error, _drop_output(), debug)


def _report(name: str, error: BaseException, unwritten: OSError | None, debug: bool) -> int:
    """Print the error that ended a command, and return the exit code; `unwritten` is that of stdout."""
    if isinstance(error, BrokenPipeError) and (isinstance(unwritten, BrokenPipeError) or _reader_left()):
        return 141
    if debug:
        _complain("".join(traceback.format_exception(error)))
    if isinstance(error, KeyboardInterrupt):
        _complain(f"{name}: stopped.{f' {error}' if str(error) else ''}\n")
        return 130
    if unwritten and isinstance(error, OSError):
        error = _OutputError(unwritten)
    _complain(f"{name}: {printable(_sentence(error))}\n")
    return 1


def guarded(name: str) -> Callable[[Callable[_P, int]], Callable[_P, int]]:
    """Return a decorator that runs a `main` under `guard`."""

    def decorate(main: Callable[_P, int]) -> Callable[_P, int]:
        @wraps(main)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
            return guard(name, lambda: main(*args, **kwargs))

        return run

    return decorate


class _OutputError(DITSError):
    """Stdout that cannot be written, as the system says of it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {_of_system(error)}")


def write(text: str, end: str = "\n") -> None:
    """Write text to stdout.

    An error that a large text or an unbuffered stream meets here is gone when stdout is flushed in the end, so
    that it is named where it is met.

    Raises:
        BrokenPipeError: the reader went away.
        DITSError: stdout cannot be written.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputError(error) from error


def show(text: object) -> None:
    """Write lines to stdout, with what a terminal would obey instead of show escaped. Raises as `write`."""
    write("\n".join(map(printable, str(text).split("\n"))))


def _sentence(error: BaseException) -> str:
    """Word an error, with its remedy, as a sentence."""
    if isinstance(error, DITSError):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return f"the memory does not suffice{f' ({error})' if str(error) else ''}. Give it less at once."
    if code := re.search(r"\(os error (\d+)\)", str(error)):  # of a library in Rust: safetensors, tokenizers
        return _of_system(OSError(int(code[1]), os.strerror(int(code[1]))))
    if isinstance(error, RecursionError):
        return "an input is nested too deeply to be read."
    from pydantic import ValidationError  # here, for --help is to be quick

    words = complaints(error) if isinstance(error, ValidationError) else str(error)
    return (
        f"unexpected {type(error).__name__}: {words.rstrip('.')}. This is a mistake in the program, not in your "
        f"command; --debug, or {_DEBUG}=1 in the environment, shows where it is."
    )


def _of_system(error: OSError) -> str:
    cause = _CAUSES.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return f"{' → '.join(names)}: {cause}." if names else f"{cause}."


def _prepare_streams() -> None:
    """Give a process whose streams are closed silent ones, and escape what a stream's charset lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for as long as it runs)
        with suppress(AttributeError, OSError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _require_working_directory() -> None:
    """Refuse to work in a deleted folder, in which native libraries end the process without a word of ours.

    Raises:
        InputError: the working directory is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the working directory was deleted; change to another one.") from None


def _drop_output() -> OSError | None:
    """Return the error of a stdout that cannot be written, and drop what it still holds; None if it can be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, sys.stdout.fileno())
            os.close(silent)
        return error
    return None


def _reader_left() -> bool:
    """Tell whether nobody reads the pipe that stdout is, which an unbuffered stream does not say when flushed."""
    with suppress(OSError, AttributeError):  # no descriptor, and no poll on Windows
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    return False


def _complain(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def _warnings_as_sentences(name: str) -> Iterator[None]:
    """Print warnings without the line of source that Python shows."""

    def sentence(message: Warning | str, *_: object, **__: object) -> str:
        return f"{name}: warning: {printable(' '.join(str(message).split()))}\n"

    usual = warnings.formatwarning
    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C: work is finished or undone, and the exit code is 130."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has signals
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child, which is to die as its parent wants
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
