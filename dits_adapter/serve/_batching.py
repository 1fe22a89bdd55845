"""`Batcher`: one forward pass for the items of several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Batcher"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batcher(Generic[_Item, _Result]):
    """Function of one item made from a function of many items, for calls from many threads.

    A call that finds the function idle runs it at once, alone. Calls that arrive while it runs wait, and one of
    them then runs it for all of them: no call waits for a batch to fill, and batches grow with the load.

    Args:
        run: maps items to as many results, in their order; it never runs twice at a time.

    >>> length = Batcher(lambda texts: [len(text) for text in texts])
    >>> length("four")
    4
    """

    def __init__(self, run: Callable[[list[_Item]], Sequence[_Result]]) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._waiting: list[tuple[_Item, Future[_Result]]] = []
        self._busy = False

    def __call__(self, item: _Item) -> _Result:
        """Return the result of one item. What `run` raises is raised for every item of the batch."""
        future: Future[_Result] = Future()
        batch: list[tuple[_Item, Future[_Result]]] = []
        with self._changed:
            self._waiting.append((item, future))
            self._changed.wait_for(lambda: future.done() or not self._busy)
            if not future.done():
                self._busy, batch, self._waiting = True, self._waiting, []
        if batch:
            self._answer(batch)
        return future.result()

    @property
    def waiting(self) -> int:
        """Items that wait for the run in progress to end."""
        return len(self._waiting)

    def _answer(self, batch: list[tuple[_Item, Future[_Result]]]) -> None:
        try:
            results = self._run([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        except BaseException as error:  # of any kind: the other threads must not wait forever
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
