"""Journal of the files that are being read, by which the next run knows a file that killed this one.

Each file has an empty marker of its own while it is read. One that is still there when the file's turn comes
again was left by a process that ended without a word: killed, or crashed by the file. All that depends on a marker
is how carefully a file is read: where none can be written, or another process reads that file, nothing is lost.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["Journal"]

_KEPT = 30 * 24 * 3600
"""Seconds for which the marker of a file that is never read again stays."""


class Journal:
    """Markers of the files that are being read, in this user's cache folder."""

    def __init__(self) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
        try:
            folder = Path(cache).expanduser()
        except RuntimeError:  # a user without a home
            folder = Path(os.devnull)
        self._folder = folder / "dits-adapter" / "reading"
        self._left: set[str] = set()
        with suppress(OSError):  # no home, no room, no permission
            self._folder.mkdir(parents=True, exist_ok=True)
            for marker in os.scandir(self._folder):
                if time.time() - marker.stat().st_mtime > _KEPT:
                    os.unlink(marker.path)
                else:
                    self._left.add(marker.name)

    def begin(self, path: str) -> None:
        """Note that a file is about to be read."""
        with suppress(OSError):
            self._marker(path).touch()

    def end(self, path: str) -> None:
        """Note that a file was read, or given up."""
        with suppress(OSError):
            self._marker(path).unlink()

    def was_left(self, path: str) -> bool:
        """Return whether the process that read the file last ended before it had."""
        return self._marker(path).name in self._left

    def _marker(self, path: str) -> Path:
        return self._folder / hashlib.sha256(path.encode()).hexdigest()
