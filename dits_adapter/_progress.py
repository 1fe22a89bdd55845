"""Progress of long work: a bar on a terminal, and elsewhere a line a minute in the log."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["bars_are_shown", "progress_bar", "without_bars"]

_logger = logging.getLogger(__name__)

_SECONDS = 60.0
"""Least seconds between two lines of one bar in the log."""

_LINE = "{desc}: {n_fmt} of {total_fmt} [{elapsed}<{remaining}{postfix}]"

_silent = False


def bars_are_shown(progress: bool = True) -> bool:
    """Return whether bars are shown: on a terminal, where neither `progress` nor `without_bars` says no."""
    return progress and not _silent and sys.stderr.isatty()


def progress_bar(iterable: Iterable[Any] | None = None, *, progress: bool = True, **options: Any) -> tqdm:
    """Make a bar of tqdm on a terminal; elsewhere one that writes to the log, where INFO is logged.

    Args:
        iterable: what to go through, as for tqdm.
        progress: False for no bar and no line.
        options: further arguments of tqdm.
    """
    if bars_are_shown(progress):
        return tqdm(iterable, **options)
    if not progress or _silent or not _logger.isEnabledFor(logging.INFO):
        return tqdm(iterable, **options, disable=True)
    options |= {"file": _Lines(), "bar_format": _LINE, "mininterval": _SECONDS, "ncols": 1_000, "position": 0}
    return tqdm(iterable, **options)


class _Lines:
    """File of a bar whose text becomes a line of the log: the first, one a minute, and the last."""

    def __init__(self) -> None:
        self._next, self._pending = -math.inf, ""

    def write(self, text: str) -> None:
        """Write what tqdm draws, and a line feed where its bar ends."""
        self._pending = text.strip() or self._pending
        if self._pending and (text == "\n" or time.monotonic() >= self._next):
            _logger.info("%s", self._pending)
            self._next, self._pending = time.monotonic() + _SECONDS, ""

    def flush(self) -> None:
        """Do nothing: the log has its own buffers."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Show no bar and log no progress while the block runs."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before
