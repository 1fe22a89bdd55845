"""Digests of files, and writes that are whole and durable or do not happen.

`sha256(path)` and `require_sha256(path, expected)` are about the content of a file, `file_identity(path)` about
the file that a path leads to.
`with write_atomically(path) as part:` writes a file and `with replace_folder(target) as fresh:` a folder,
in place of what was there. `read_whole(folder, read)` reads a folder that may be replaced meanwhile.
`sync_folder(folder)` makes the names in a folder durable.

A folder is written beside its place, in `.NAME.xxxxxxxx.part/new`, and exchanged for the old one in one step where
the system can do that. Elsewhere it takes two: the old folder moves to `.NAME.xxxxxxxx.part/old`, and the new one
to its place. A process that is killed between the two leaves both there, and `recover_folder` does the second. The
folder `.part` is locked while its process lives; `replace_folder` removes those that are not.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import portalocker

from dits_adapter.errors import ArtifactError, DITSError, InputError

__all__ = [
    "PART",
    "file_identity",
    "read_whole",
    "recover_folder",
    "replace_folder",
    "require_sha256",
    "require_writable",
    "sha256",
    "sync_folder",
    "write_atomically",
]

PART = ".part"
"""Suffix of the name under which a file or a folder is written until it is whole."""

_NEW, _OLD, _LOCK = "new", "old", "lock"
"""Names in the folder beside a target: what takes its place, what was there, and the lock of the process."""

_PATIENCE = 10.0
"""Seconds that a reader gives a living process between the two steps of an exchange."""

_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of an exchange that the system, the file system or a sandbox does not offer."""

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
"""Errors of a rename to a name that a folder has."""

_Content = TypeVar("_Content")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(block):
            digest.update(block[:n])
    return digest.hexdigest()


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what all paths to a file share, links and other spellings included; None where no file is."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a NUL, which no path holds
        return None
    return status.st_dev, status.st_ino


def require_writable(folder: Path) -> None:
    """Refuse a folder that may not be written to, before the work whose result is to lie there.

    Args:
        folder: a missing one is judged by the nearest one above it.

    Raises:
        InputError: a file is in its way, or its rights forbid it.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise InputError(
            f"{folder}: cannot be written, as {existing} forbids it or is no folder. Choose another place."
        )


def require_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not, byte for byte, the one that was saved.

    Raises:
        ArtifactError: the file has another digest, or cannot be read.
    """
    try:
        digest = sha256(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}).") from None
    if digest != expected:
        raise ArtifactError(f"{path}: was changed or damaged after it was saved.")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Write a file so that the path names the old content or the new one, also after a power cut.

    Args:
        path: the file; its folder exists.

    Yields:
        Path beside it, of an empty file, to write the content to. It gets the name once it is on the disk, with
        the permissions of any new file, and is removed where an error ends the block.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        part.touch()
        mode = part.stat().st_mode  # what writes may replace the file, by one for its owner alone
        yield part
        part.chmod(mode)
        _sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Write a folder whole or not at all, in the place of an earlier one; the last of several writers wins.

    Args:
        target: the folder; folders above it are made. A link is followed, as where a file is written.

    Yields:
        Empty folder beside it, to write the content to. It gets the name once its files are on the disk, and is
        removed where an error ends the block.

    Raises:
        OSError: the folder cannot be written.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    _remove_leftovers(target)
    scratch, lock = _make_scratch(target)
    try:
        fresh = scratch / _NEW
        fresh.mkdir()
        yield fresh
        for folder, _, names in os.walk(fresh):
            for name in names:
                _sync(Path(folder) / name)
            sync_folder(Path(folder))
        sync_folder(scratch)
        _put(scratch, target)
        sync_folder(target.parent)
    finally:
        _discard(scratch, lock, target)


def recover_folder(target: Path) -> None:
    """Complete the replacement of a folder that a killed process left between its two steps.

    Raises:
        ArtifactError: the folder is missing, and another process or a lack of permission keeps its files.
    """
    try:
        target = target.resolve()
    except (OSError, ValueError, RuntimeError):  # no path at all, a circle of links, no working directory
        return
    deadline = time.monotonic() + _PATIENCE
    while not target.exists():
        scratch = next(filter(_is_between, _scratch_folders(target)), None)
        if scratch is None:
            return
        reason = "another process is at it"
        try:
            if (lock := _lock(scratch)) is not None:
                try:
                    if _is_between(scratch) and not target.exists():
                        os.rename(scratch / _NEW, target)
                        sync_folder(target.parent)
                finally:
                    _discard(scratch, lock, target)
                continue
        except FileNotFoundError:  # the other process was quicker
            continue
        except (OSError, portalocker.LockException) as error:
            reason, deadline = str(error), 0.0
        if time.monotonic() > deadline:
            raise ArtifactError(
                f"{target}: was being replaced when that process ended, and cannot be put back ({reason}). It is "
                f"{scratch / _NEW}: rename that."
            )
        time.sleep(0.01)


def read_whole(folder: Path, read: Callable[[], _Content]) -> _Content:
    """Read files of one version of a folder that other processes may replace.

    Args:
        folder: the folder.
        read: reads it; called again where the folder was replaced meanwhile.
    """
    while True:
        recover_folder(folder)
        with _opened(folder) as is_in_place:
            try:
                content = read()
            except (DITSError, OSError):
                if is_in_place():
                    raise
            else:
                if is_in_place():
                    return content


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut, where the system can."""
    if os.name == "posix":
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(scratch: Path, target: Path) -> None:
    """Move the new folder to its place and the old one, if any, out of it."""
    fresh, old = scratch / _NEW, scratch / _OLD
    while True:
        if not target.exists():
            try:
                os.rename(fresh, target)
                return
            except OSError as error:
                if not _was_quicker(error, target):
                    raise
        if _exchange(fresh, target):
            return
        with suppress(FileNotFoundError):
            os.rename(target, old)
        try:
            os.rename(fresh, target)
            return
        except OSError as error:
            if not _was_quicker(error, target):
                if old.exists():
                    os.rename(old, target)
                raise
        if old.exists():  # what the other process put there is what is to be replaced now
            shutil.rmtree(old)


def _was_quicker(error: OSError, target: Path) -> bool:
    """Tell whether a rename failed as another process had put its own folder there, and perhaps away again."""
    return error.errno in _TAKEN or target.exists()


def _exchange(folder: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where that is not to be had.

    Raises:
        OSError: the system has refused it.
    """
    if os.name != "posix":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(folder), os.fsencode(other)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, ctypes.c_uint(2))  # RENAME_SWAP
    elif sys.platform == "linux" and hasattr(libc, "renameat2"):
        here = ctypes.c_int(-100)  # AT_FDCWD
        failed = libc.renameat2(here, names[0], here, names[1], ctypes.c_uint(2))  # RENAME_EXCHANGE
    else:
        return False
    if failed and (number := ctypes.get_errno()) not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number), str(folder), None, str(other))
    return not failed


def _make_scratch(target: Path) -> tuple[Path, IO[bytes]]:
    """Make a folder beside the target that no other process touches."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PART, dir=target.parent))
        try:
            lock = _lock(scratch)
        except portalocker.LockException:  # a file system without locks, on which nobody removes it either
            lock = (scratch / _LOCK).open("ab")
        except FileNotFoundError:  # another process took it for a leftover, before it was locked
            continue
        if lock is not None:
            return scratch, lock


def _scratch_folders(target: Path) -> list[Path]:
    """List the folders beside a target in which it is, or was, replaced."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(PART)}")
    try:
        names = os.listdir(target.parent)
    except OSError:
        return []
    return [target.parent / name for name in sorted(names) if pattern.fullmatch(name)]


def _is_between(scratch: Path) -> bool:
    """Tell whether the old folder was moved away and the new one is not in its place."""
    return (scratch / _OLD).exists() and (scratch / _NEW).exists()


def _remove_leftovers(target: Path) -> None:
    """Remove the folders beside a target whose processes have ended."""
    for scratch in _scratch_folders(target):
        with suppress(OSError, portalocker.LockException):  # of another user, for one
            if (lock := _lock(scratch)) is not None:
                _discard(scratch, lock, target)


def _lock(scratch: Path) -> IO[bytes] | None:
    """Lock the folder beside a target; None where a living process holds it.

    Raises:
        portalocker.LockException: the file system has no locks.
        FileNotFoundError: the folder was removed.
    """
    path = scratch / _LOCK
    lock = path.open("ab")
    try:
        portalocker.lock(lock, portalocker.LOCK_EX | portalocker.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):  # and not removed before it was locked
            return lock
    except portalocker.AlreadyLocked:
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _discard(scratch: Path, lock: IO[bytes], target: Path) -> None:
    """Remove the folder beside a target; what cannot be removed is left to the next writer.

    Where the target is missing, the old folder and the new one stay: `recover_folder` needs them.
    """
    if target.exists() or not _is_between(scratch):
        for name in (_OLD, _NEW):
            shutil.rmtree(scratch / name, ignore_errors=True)
        lock.close()  # some systems remove no open file
        shutil.rmtree(scratch, ignore_errors=True)
    lock.close()


@contextmanager
def _opened(folder: Path) -> Iterator[Callable[[], bool]]:
    """Open a folder, and yield a function that tells whether its path still names it."""
    handle = None
    with suppress(OSError, ValueError):  # no such folder, no path at all, or a system that opens none
        handle = os.open(folder, os.O_RDONLY)  # while it is open, its inode number is of no other folder
    before = _identity(folder) if handle is None else _identity(handle)
    try:
        yield lambda: _identity(folder) == before
    finally:
        if handle is not None:
            os.close(handle)


def _identity(folder: Path | int) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
