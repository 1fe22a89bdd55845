"""Clips for look-alikes of the datasets."""

from __future__ import annotations

import pytest

from benchmarks.datasets.lookalike import make_clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Video files with five captions each: 8 of train, 2 of val, 4 of test."""
    return make_clips(tmp_path_factory.mktemp("clips"), {"train": 8, "val": 2, "test": 4})
