"""Memory that training steps free and take again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's `mallopt`."""

_KEPT = 2**31 - 1
"""Bytes at the end of the heap that stay with the process."""

_LARGEST = 32 * 2**20
"""Bytes of a block beyond which glibc maps it by itself in any case."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep what is freed with the process meanwhile, and give it back to the system at the end.

    A step frees all its gradients and activations. glibc would give them back to the system at once, and fetch
    them anew for the next step, page by page: a sixth of a step of DITS with T' = 1. Other C libraries are left
    alone.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    assert libc is not None
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)  # the most that glibc reaches by itself
        libc.malloc_trim(0)
