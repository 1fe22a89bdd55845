"""Costs of the stages of a run: wall time and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Cost:
    """Cost of one stage.

    Attributes:
        seconds: wall time.
        resumed: True where the stage continued an earlier run, which shortened it.
        process_mib: greatest memory of the process from its start to the end of the stage, in MiB.
        gpu_mib: greatest memory of the graphics card in this stage, in MiB; None without one.
    """

    seconds: float
    resumed: bool
    process_mib: float
    gpu_mib: float | None


@dataclass
class Costs:
    """Record of the stages of a run.

    >>> costs = Costs()
    >>> with costs.of("nothing"):
    ...     pass
    >>> costs.stages["nothing"].resumed
    False
    """

    stages: dict[str, Cost] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str, *, resumed: bool = False) -> Iterator[None]:
        """Measure the block of a `with` statement; memory on CUDA is that of the current device's allocator."""
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        gpu = torch.cuda.max_memory_allocated() / 1024**2 if cuda else None
        self.stages[stage] = Cost(seconds, resumed, process_mib(), gpu)


def process_mib() -> float:
    """Return the greatest memory of this process so far, in MiB."""
    import resource  # not on Windows

    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
