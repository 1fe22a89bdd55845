"""Sampled moments of a video: the middles of equal intervals, and the segments of a long video."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import InputError

__all__ = ["count_segments", "interval_middles", "segment_spans"]


def interval_middles(start: float, end: float, n: int) -> npt.NDArray[np.float64]:
    """Return the middles of n equal intervals of [start, end): (n,) float64, in the unit of the bounds.

    X-Pool's deterministic sampling (Gorti et al., CVPR 2022), by time instead of by frame number, so that it means
    the same where the frame rate varies.

    Raises:
        InputError: n < 1, or not 0 <= start < end.

    >>> interval_middles(0.0, 6.0, 3).tolist()
    [1.0, 3.0, 5.0]
    """
    if n < 1:
        raise InputError(f"expected at least one frame, got n={n}.")
    if not 0 <= start < end < math.inf:
        raise InputError(f"expected 0 <= start < end in seconds, got start={start}, end={end}.")
    return np.asarray(start + (np.arange(n) + 0.5) * ((end - start) / n), np.float64)


def segment_spans(
    duration: float,
    seconds: float | None = None,
    overlap: float = 0.0,
    *,
    starts: npt.NDArray[np.float64] | None = None,
) -> Iterator[tuple[float, float]]:
    """Cut [0, duration) into segments of `seconds`, each `overlap` seconds into the one before.

    The last segment takes what remains. With step = seconds - overlap, a remainder shorter than half a step is
    joined to the segment before it: so the last segment lasts `seconds` give or take half a step, the others
    exactly `seconds`, and only a video shorter than that has a shorter one.

    Args:
        duration: length of the video in seconds.
        seconds: length of a segment; None for one segment that is the whole video.
        overlap: seconds that neighboring segments share, less than `seconds`.
        starts: (m,) ascending seconds at which frames begin; segments in which none does are left out.

    Returns:
        Iterator over (start, end) of each segment, in seconds. It takes as long as there are frames, not as long
        as the video claims to last.

    Raises:
        InputError: a length that is not positive, or an overlap outside [0, seconds).

    >>> list(segment_spans(25.0, 10.0))
    [(0.0, 10.0), (10.0, 20.0), (20.0, 25.0)]
    >>> list(segment_spans(22.0, 10.0))
    [(0.0, 10.0), (10.0, 22.0)]
    """
    if not 0 < duration < math.inf:
        raise InputError(f"expected a positive duration in seconds, got {duration}.")
    if seconds is None:
        return iter([(0.0, duration)])
    _require_segments(seconds, overlap)
    return _spans(duration, seconds, seconds - overlap, count_segments(duration, seconds, overlap) - 1, starts)


def count_segments(duration: float, seconds: float | None = None, overlap: float = 0.0) -> int:
    """Count the segments of a video in which frames begin everywhere: see `segment_spans`."""
    if seconds is None:
        return 1
    _require_segments(seconds, overlap)
    return max(0, math.floor((duration - seconds) / (seconds - overlap) - 0.5) + 1) + 1


def _require_segments(seconds: float, overlap: float) -> None:
    if not 0 < seconds < math.inf:
        raise InputError(f"expected a positive segment length in seconds, got {seconds}.")
    if not 0 <= overlap < seconds:
        raise InputError(f"expected an overlap of at least 0 and less than {seconds} seconds, got {overlap}.")


def _spans(
    duration: float, seconds: float, step: float, last: int, starts: npt.NDArray[np.float64] | None
) -> Iterator[tuple[float, float]]:
    k = 0
    while k <= last:
        start, end = k * step, duration if k == last else k * step + seconds
        if starts is not None:
            begun = int(np.searchsorted(starts, start - 1e-6))
            if begun == len(starts):
                return
            if starts[begun] >= end:  # on to the first segment that the next frame lies in
                k = max(k + 1, min(last, math.ceil((starts[begun] - seconds) / step)))
                continue
        yield start, end
        k += 1
