"""Arrays in shards against arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.data._sharded_array import ShardedArray


def sharded(sizes: Sequence[int], width: int = 3) -> tuple[ShardedArray, np.ndarray]:
    """ShardedArray in shards of the given sizes, and the same as one array."""
    whole = np.random.default_rng(0).normal(size=(sum(sizes), width)).astype(np.float32)
    starts = np.cumsum([0, *sizes])
    shards = [whole[a:b] for a, b in pairwise(starts)]
    return ShardedArray(shards.__getitem__, starts[:-1], np.arange(len(whole)), (width,), np.float32), whole


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_rows_are_indexed_as_an_array_is(sizes, data):
    rows, whole = sharded(sizes)
    n = len(whole)
    assert rows.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(rows), whole)
    chosen = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=8) if n else st.just([])), np.int64)
    edge = st.none() | st.integers(-8, 8)
    start, stop, step = data.draw(st.tuples(edge, edge, st.sampled_from([None, 1, 2, -1])))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    for key in (chosen, chosen.reshape(1, -1), slice(start, stop, step), mask, *chosen[:1].tolist()):
        np.testing.assert_array_equal(rows[key], whole[key])
    view = rows.select(chosen)
    np.testing.assert_array_equal(np.asarray(view), whole[chosen])
    np.testing.assert_array_equal(np.asarray(view.select(np.arange(len(chosen))[::-1])), whole[chosen][::-1])


def test_rows_refuse_what_an_array_refuses():
    rows, _ = sharded([2, 3])
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(ValueError, match="without a copy"):
        rows.__array__(copy=False)
    assert np.asarray(rows, np.float64).dtype == np.float64
