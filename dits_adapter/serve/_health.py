"""`Health`: state of the service, for containers and load balancers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel

from dits_adapter.errors import DITSError
from dits_adapter.stores.base import VideoStore

__all__ = ["Health", "HealthAnswer"]

_SECONDS = 2.0
"""Time for which an answer of the store is reused: anybody may ask, and the store is not to be flooded."""

_logger = logging.getLogger(__name__)


class HealthAnswer(BaseModel):
    """State of the service.

    Attributes:
        status: "ok", or "unavailable" while the store gives no answers.
        detail: the reason, for those who may know it.
    """

    status: Literal["ok", "unavailable"]
    detail: str | None = None


class Health:
    """Check whether searches can be answered: the model is loaded before, so that it is the store that may fail.

    Args:
        store: function that returns the store in use.
    """

    def __init__(self, store: Callable[[], VideoStore]) -> None:
        self._store = store
        self._limiter: CapacityLimiter | None = None  # which is made where an event loop runs
        self._answer: HealthAnswer | None = None
        self._until = 0.0

    async def check(self) -> HealthAnswer:
        """Ask the store, on a thread that searches do not take; everybody who asks meanwhile gets one answer."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(1)
        return await to_thread.run_sync(self._check, limiter=self._limiter)

    def _check(self) -> HealthAnswer:
        if self._answer is not None and time.monotonic() < self._until:
            return self._answer
        try:
            self._store().count()
            answer = HealthAnswer(status="ok")
        except DITSError as error:
            answer = HealthAnswer(status="unavailable", detail=str(error))
        if self._answer is not None and answer.status != self._answer.status:
            _logger.warning(
                "the store %s", "answers again" if answer.status == "ok" else f"fails: {answer.detail}"
            )
        self._answer, self._until = answer, time.monotonic() + _SECONDS
        return answer
