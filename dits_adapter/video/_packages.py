"""Packages that decode video, imported when a decoder is first used."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dits_adapter._extras import PACKAGES
from dits_adapter.errors import DITSError, MissingExtraError

__all__ = ["error_line", "load_package", "require_package"]

_MODULES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}


def load_package(decoder: str) -> Any:
    """Import the package of a decoder ("pyav", "decord" or "torchcodec").

    Raises:
        MissingExtraError: the package is not installed.
        DITSError: the package is installed and does not load.
    """
    try:
        return import_module(_MODULES[decoder])
    except ImportError:
        package = PACKAGES[_MODULES[decoder].partition(".")[0]]
        raise MissingExtraError(*package, f"decoding video with {decoder}") from None
    except (OSError, RuntimeError) as error:  # torchcodec without FFmpeg's libraries or with another torch
        raise DITSError(
            f"{decoder} is installed but does not load ({error_line(error)}); choose another decoder."
        ) from error


def require_package(decoder: str) -> None:
    """Check that the package of a decoder is installed, without importing it; raises as `load_package`."""
    name = _MODULES[decoder].partition(".")[0]
    if find_spec(name) is None:
        raise MissingExtraError(*PACKAGES[name], f"decoding video with {decoder}")


def error_line(error: BaseException) -> str:
    """Return the message of a decoder's error on one line, in words that a user can read.

    Source locations and failed assertions are left out. Errors of Python's own kinds, such as an IndexError, are
    slips of a library over a file that it did not foresee; their messages say nothing about the file.
    """
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    own = type(error).__module__ == "builtins" and not isinstance(error, (OSError, RuntimeError, ImportError))
    if own or isinstance(error, RecursionError):
        return "does not know what to make of it"
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    words = _LOCATION.sub("", lines[0]).strip()[:200] if lines else ""
    return words or "fails without saying why"


_LOCATION = re.compile(r".*\.cc:\d+: |\[/[^]]*\] |.*\(\S+ vs\. \S+\) |.*Check failed: ")
"""Part of a message in front of its words: time, source file and line, path, and the assertion that failed."""
