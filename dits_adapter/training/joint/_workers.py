"""Processes that decode videos for a DataLoader."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

from dits_adapter.training.joint import _datasets

__all__ = ["end_with_parent", "worker_context", "worker_count"]


def worker_count(most: int) -> int:
    """Return the number of workers: `most`, or that of the cores of this process where there are fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(most, cores)


def end_with_parent(worker: int) -> None:
    """End this process once the training process is gone, even if killed; a `worker_init_fn` of a DataLoader.

    A DataLoader's own watch looks at the parent's id, which for a worker of a fork server is the server's.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_context() -> Any:
    """Return a context that starts workers from a process without threads.

    A fork of this process may inherit a lock that nobody will open.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_datasets.__name__, "transformers.models.clip.image_processing_pil_clip"])
    return context
