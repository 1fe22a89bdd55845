"""One forward pass for what several threads ask for at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Makes a function of many items one of a single item, to be called from many threads.

    A call that finds the function idle runs it at once, alone. Calls that come while it runs wait, and one of them
    then runs it for all that have come: nobody waits for company, and the busier it is the larger the batches.

    Args:
        run: items to as many results, in their order; never runs twice at a time.

    >>> length = Batcher(lambda texts: [len(text) for text in texts])
    >>> length("four")
    4
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Result]]) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._busy = False

    def __call__(self, item: Item) -> Result:
        """Return the result of one item. What `run` raises is raised for every item of the batch."""
        future: Future[Result] = Future()
        batch: list[tuple[Item, Future[Result]]] = []
        with self._changed:
            self._waiting.append((item, future))
            self._changed.wait_for(lambda: future.done() or not self._busy)
            if not future.done():
                self._busy, batch, self._waiting = True, self._waiting, []
        if batch:
            self._answer(batch)
        return future.result()

    def _answer(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        try:
            results = self._run([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        except BaseException as error:  # whatever it is, the others must not wait for ever
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
