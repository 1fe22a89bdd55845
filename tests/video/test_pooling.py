"""Mean pooling of unit frame vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.errors import InputError
from dits_adapter.vectors import unit
from dits_adapter.video._pooling import mean_pool


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40))
def test_the_mean_of_directions(seed, n, width):
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(n, width)) * rng.uniform(0.1, 100, size=(n, 1)) + 3
    total = np.zeros(width)
    for frame in frames:
        total += frame / np.sqrt(np.sum(frame**2))
    pooled = mean_pool(frames)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, total / np.sqrt(np.sum(total**2)), atol=1e-6)


def test_the_length_of_a_frame_vector_and_the_order_of_frames_do_not_count():
    frames = np.random.default_rng(0).normal(size=(5, 8)) + 1
    np.testing.assert_allclose(
        mean_pool(frames * [[1], [2], [30], [0.1], [5]]), mean_pool(frames[::-1]), atol=1e-6
    )


def test_many_segments_at_once():
    frames = np.random.default_rng(0).normal(size=(3, 5, 8)) + 1
    np.testing.assert_array_equal(mean_pool(frames), np.stack([mean_pool(segment) for segment in frames]))


@pytest.mark.parametrize("frames", [[[1.0, 0.0], [0.0, 0.0]], [[1.0, np.nan]], [[1.0, 0.0], [-1.0, 0.0]]])
def test_frames_without_direction_are_refused(frames):
    with pytest.raises(InputError, match="cannot be scaled"):
        mean_pool(frames)


def test_unit_keeps_unit_vectors():
    vectors = unit(np.random.default_rng(0).normal(size=(4, 16)))
    np.testing.assert_allclose(unit(vectors), vectors, atol=1e-7)
