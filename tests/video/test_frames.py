"""Sampled moments and segments."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.errors import InputError
from dits_adapter.video._frames import interval_middles, segment_spans

lengths = st.floats(0.05, 500.0)


@given(st.floats(0, 1e4), lengths, st.integers(1, 100))
def test_middles_are_those_of_equal_intervals(start, length, n):
    middles = interval_middles(start, start + length, n)
    assert middles.shape == (n,)
    assert middles.dtype == np.float64
    bounds = [start + k * length / n for k in range(n + 1)]
    np.testing.assert_allclose(middles, [(a + b) / 2 for a, b in pairwise(bounds)], atol=1e-9)
    np.testing.assert_allclose(middles + middles[::-1], 2 * start + length, rtol=1e-9)


@pytest.mark.parametrize(
    ("start", "end", "n"), [(0, 1, 0), (1, 1, 3), (2, 1, 3), (-1, 1, 3), (0, math.nan, 3), (0, math.inf, 3)]
)
def test_impossible_intervals_are_refused(start, end, n):
    with pytest.raises(InputError, match="expected"):
        interval_middles(start, end, n)


@given(lengths, st.floats(0.5, 60.0), st.floats(0, 0.9))
def test_segments_cover_the_video_with_the_overlap_asked_for(duration, seconds, share):
    overlap = share * seconds
    step = seconds - overlap
    spans = list(segment_spans(duration, seconds, overlap))
    assert spans[0][0] == 0
    assert spans[-1][1] == duration
    for (start, end), (later, _) in pairwise(spans):
        assert end - start == pytest.approx(seconds)
        assert end - later == pytest.approx(overlap, abs=1e-6)
    last = spans[-1][1] - spans[-1][0]
    assert last < seconds + step / 2 + 1e-6
    if len(spans) > 1:
        assert last >= seconds - step / 2 - 1e-6


@pytest.mark.parametrize(
    ("duration", "seconds", "overlap", "spans"),
    [
        (7.5, None, 0, [(0, 7.5)]),
        (7.5, 10, 0, [(0, 7.5)]),
        (20, 10, 0, [(0, 10), (10, 20)]),
        (24.9, 10, 0, [(0, 10), (10, 24.9)]),
        (25, 10, 0, [(0, 10), (10, 20), (20, 25)]),
        (20, 10, 5, [(0, 10), (5, 15), (10, 20)]),
        (0.6, 0.2, 0, [(0, 0.2), (0.2, 0.4), (0.4, 0.6)]),
    ],
)
def test_segments_by_hand(duration, seconds, overlap, spans):
    assert list(segment_spans(duration, seconds, overlap)) == [pytest.approx(span) for span in spans]


@pytest.mark.parametrize(
    ("duration", "seconds", "overlap", "message"),
    [
        (0, 1, 0, "positive duration"),
        (math.nan, 1, 0, "positive duration"),
        (9, 0, 0, "positive segment length"),
        (9, math.nan, 0, "positive segment length"),
        (9, 1, 1, "overlap"),
        (9, 1, -0.1, "overlap"),
    ],
)
def test_impossible_segments_are_refused(duration, seconds, overlap, message):
    with pytest.raises(InputError, match=message):
        segment_spans(duration, seconds, overlap)
