"""Every error the package raises on purpose: what was wrong, where, and what to do about it."""

from __future__ import annotations

from os import PathLike, fspath


class DITSError(Exception):
    """Base of all errors raised by `dits_adapter`; catching it catches them all."""


class ArtifactError(DITSError):
    """A saved adapter that cannot be trusted: damaged, incomplete, of an unknown version, or pickled."""


class SpaceMismatchError(DITSError):
    """Two things that should live in one embedding space do not: adapter, encoder, cache or collection."""


class StoreError(DITSError):
    """A vector store that cannot be reached, read or written, or a collection that is not what it should be."""


class VideoError(DITSError):
    """A file from which no frames can be had.

    Attributes:
        path: the file, as given.
        reason: one clause saying what is wrong with it.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        self.path = fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # errors cross process borders


class MissingExtraError(DITSError, ImportError):
    """A package is not installed; the message holds the pip line that installs it.

    Args:
        package: its name.
        extra: the extra of ours that brings the package; None for one that every installation has.
        purpose: what needs it.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        line = f'"dits-adapter[{extra}]"' if extra else package
        super().__init__(f'{purpose} needs the package "{package}". Install it with: pip install {line}')


class InputError(DITSError, ValueError):
    """A value handed to a function is not one it accepts; the message names the row, the value and the remedy."""
