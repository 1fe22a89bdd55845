"""Memory of what a server has shown and people may judge, and the file to which their judgements are added."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar

from dits_adapter.errors import InputError
from dits_adapter.sources._feedback_file import Judgement, Preference, TakenBack, append

__all__ = ["ForgottenSearchError", "Judging", "now"]

T = TypeVar("T")


class ForgottenSearchError(InputError):
    """Search that is judged too late, or by another process than the one that answered it."""


@dataclass
class _Shown(Generic[T]):
    what: T
    size: int
    judged: Any = None


class Judging(Generic[T]):
    """Memory of what may be judged, each with its last judgement; safe to use from several threads.

    Args:
        path: file of feedback.
        forgotten: message about what is no longer in the memory.
    """

    def __init__(self, path: Path, forgotten: str) -> None:
        self._path = path
        self._forgotten = forgotten
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._shown: OrderedDict[str, _Shown[T]] = OrderedDict()
        self._size = 0

    def remember(self, name: str, what: T, *, size: int = 1, most: int) -> None:
        """Keep what was shown, and forget the oldest while the sizes of all are above `most`."""
        with self._lock:
            self._shown[name] = _Shown(what, size)
            self._size += size
            while self._size > most and len(self._shown) > 1:
                self._size -= self._shown.popitem(last=False)[1].size

    def find(self, name: str) -> T:
        """Return what was shown under a name.

        Raises:
            ForgottenSearchError: no such name in the memory of this process.
        """
        return self._find(name).what

    def judge(self, name: str, judgement: Any, record: Callable[[], Judgement | Preference]) -> None:
        """Add the record of a judgement to the file, unless it says what the last one says.

        Raises:
            ForgottenSearchError: as `find`.
            DITSError: the file cannot be written.
        """
        self._write(name, judgement, record)

    def take_back(self, name: str) -> None:
        """Write down that a judgement is taken back; nothing where there is none.

        Raises:
            ForgottenSearchError, DITSError: as `judge`.
        """
        self._write(name, None, lambda: TakenBack(time=now(), search=name))

    def _write(self, name: str, judged: Any, record: Callable[[], Judgement | Preference | TakenBack]) -> None:
        shown = self._find(name)
        with self._writing:
            if shown.judged != judged:
                append(self._path, record())
                shown.judged = judged

    def _find(self, name: str) -> _Shown[T]:
        with self._lock:
            shown = self._shown.get(name)
        if shown is None:
            raise ForgottenSearchError(self._forgotten)
        return shown


def now() -> datetime:
    """Return the time of a record."""
    return datetime.now(timezone.utc)
