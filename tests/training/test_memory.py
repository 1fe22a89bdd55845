"""Memory of training steps: kept between them, and given back at the end."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dits_adapter.training._memory import keep_freed_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone has the options"
)
BLOCKS, PAGES = 20, 1500
"""Blocks of some 6 MB, as the gradients of a layer are."""


def step() -> list[torch.Tensor]:
    return [torch.zeros(PAGES, 1024) for _ in range(BLOCKS)]


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_pages() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def look_at_the_memory_of_steps() -> None:
    step()
    before = resident_pages()
    with keep_freed_memory():
        step()
        faults = page_faults()
        step()
        assert page_faults() - faults < BLOCKS * PAGES / 2  # aligned blocks do not fit into the holes to the byte
        assert resident_pages() - before > BLOCKS * PAGES / 2
    assert resident_pages() - before < BLOCKS * PAGES / 10

    @keep_freed_memory()
    def interrupted():
        step()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert resident_pages() - before < BLOCKS * PAGES / 10


def test_a_step_takes_the_memory_of_the_last_one_and_all_of_it_goes_back_after_an_error_too():
    # In a process whose heap has no holes that other tests have left.
    call = f"from {__name__} import look_at_the_memory_of_steps as look; look()"
    subprocess.run([sys.executable, "-c", call], check=True, cwd=Path(__file__).parents[2])
