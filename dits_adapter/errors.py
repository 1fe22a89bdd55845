"""Errors of the package; their messages name the place, the value and the remedy.

DITSError
├── ArtifactError       a saved adapter or encoder that cannot be loaded
├── SpaceMismatchError  vectors of two embedding spaces
├── StoreError          a vector store or a collection
│   └── MissingCollectionError  a collection that is not there
├── VideoError          a video file
├── MissingExtraError   a package that is not installed (also an ImportError)
└── InputError          a bad argument (also a ValueError)
"""

from __future__ import annotations

from os import PathLike, fspath

__all__ = [
    "ArtifactError",
    "DITSError",
    "InputError",
    "MissingCollectionError",
    "MissingExtraError",
    "SpaceMismatchError",
    "StoreError",
    "VideoError",
]


class DITSError(Exception):
    """Base of all errors raised by `dits_adapter`; catching it catches them all."""


class ArtifactError(DITSError):
    """Saved adapter or encoder that cannot be loaded: missing, damaged, pickled, or of an unknown kind."""


class SpaceMismatchError(DITSError):
    """Adapter, encoder, cache or collection of another embedding space than its counterpart."""


class StoreError(DITSError):
    """Vector store that cannot be reached, read or written, or a collection that is not as it should be."""


class MissingCollectionError(StoreError):
    """Collection that is not there, or no longer."""


class VideoError(DITSError):
    """Video file that gives no frames.

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
    """Package that is not installed; the message holds the pip line that installs it.

    Args:
        package: name of the package.
        extra: the extra of ours that brings the package; None for one that every installation has.
        purpose: use that needs the package.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        line = f'"{_distribution()}[{extra}]"' if extra else package
        super().__init__(f'{purpose} needs the package "{package}". Install it with: pip install {line}')


def _distribution() -> str:
    """Return the distribution whose extra is to be named: beside the slim one, the whole would bring torch."""
    from importlib.metadata import Distribution  # slow to import, and seldom needed

    whole, slim = (any(Distribution.discover(name=name)) for name in ("dits-adapter", "dits-adapter-slim"))
    return "dits-adapter-slim" if slim and not whole else "dits-adapter"


class InputError(DITSError, ValueError):
    """Argument that a function does not accept; the message names the row, the value and the remedy."""
