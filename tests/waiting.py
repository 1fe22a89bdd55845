"""How tests wait for what another thread or process does: for the thing itself, never for a time.

A busy machine may stop any process for many seconds, between any two lines. Who waits too little fails then; who
waits long pays for it only where a test fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PATIENCE", "wait_until"]

PATIENCE = 180.0
"""Seconds after which what has not happened is taken not to happen."""


def wait_until(condition: Callable[[], object], pause: float = 0.02) -> None:
    """Wait until something is true, and fail where it does not become true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what is waited for does not happen"
        time.sleep(pause)
