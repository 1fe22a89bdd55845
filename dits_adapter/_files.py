"""Digests of files, and writes that are whole and durable or do not happen.

`sha256(path)` and `require_sha256(path, expected)` are about the content of a file, `file_identity(path)` about
the file that a path leads to.
`with write_atomically(path) as part:` writes a file and `with replace_folder(target) as fresh:` a folder,
in place of what was there. `sync_folder(folder)` makes the names in a folder durable.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dits_adapter.errors import ArtifactError

__all__ = [
    "PART",
    "file_identity",
    "replace_folder",
    "require_sha256",
    "sha256",
    "sync_folder",
    "write_atomically",
]

PART = ".part"
"""Suffix of the name under which a file is written until it is whole."""


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
    """Write a folder whole or not at all, in the place of an earlier one.

    Args:
        target: the folder, as an absolute path; folders above it are made.

    Yields:
        Empty folder beside it, to write the content to. It gets the name once its files are on the disk, and is
        removed where an error ends the block.

    Raises:
        OSError: the folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh, old = Path(scratch) / target.name, Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        for folder, _, names in os.walk(fresh):
            for name in names:
                _sync(Path(folder) / name)
            sync_folder(Path(folder))
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(fresh, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
