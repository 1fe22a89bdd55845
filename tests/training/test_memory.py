"""Memory of training steps: kept between them, and given back at the end."""

from __future__ import annotations

import ctypes
import resource
import sys

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


def test_a_step_takes_the_memory_of_the_last_one_and_all_of_it_goes_back():
    step()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier tests left behind would be taken first
    before = resident_pages()
    with keep_freed_memory():
        step()
        faults = page_faults()
        step()
        assert page_faults() - faults < BLOCKS * PAGES / 10
        assert resident_pages() - before > BLOCKS * PAGES / 2
    assert resident_pages() - before < BLOCKS * PAGES / 10


def test_it_goes_back_after_an_error_too():
    before = resident_pages()

    @keep_freed_memory()
    def interrupted():
        step()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert resident_pages() - before < BLOCKS * PAGES / 10
