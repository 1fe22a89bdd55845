"""Limit to the time of a fit: its trainings end with the epoch in which the time runs out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["TimeLimit", "note_stop", "out_of_time", "time_limit", "was_stopped"]


@dataclass
class TimeLimit:
    """Limit of a fit.

    Attributes:
        end: time of `time.monotonic` at which it runs out.
        reached: True once a training ended because of it.
    """

    end: float
    reached: bool = False


_limit: ContextVar[TimeLimit | None] = ContextVar("_limit", default=None)


@contextmanager
def time_limit(seconds: float = math.inf) -> Iterator[TimeLimit]:
    """Limit the trainings that are run meanwhile, all together."""
    limit = TimeLimit(time.monotonic() + seconds)
    token = _limit.set(limit)
    try:
        yield limit
    finally:
        _limit.reset(token)


def out_of_time() -> bool:
    """Return True, and note it, where the limit of this fit has run out."""
    limit = _limit.get()
    if limit is None or time.monotonic() < limit.end:
        return False
    limit.reached = True
    return True


def was_stopped() -> bool:
    """Return True where a training of this fit ended because of its limit."""
    limit = _limit.get()
    return limit is not None and limit.reached


def note_stop() -> None:
    """Note that this fit takes the result of a training that ended because of another one's limit."""
    limit = _limit.get()
    if limit is not None:
        limit.reached = True
