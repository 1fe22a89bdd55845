"""Random splits of videos, groups of which stay together."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import counted
from dits_adapter.errors import InputError

__all__ = ["MOST_HELD_OUT", "held_out_size", "split_videos"]

MOST_HELD_OUT = 10_000
"""Videos that are held out, or measured on, at most: each text searches all of them, which takes the square of
their number, and R@1 of 10,000 queries is known to one point."""


def split_videos(
    count: int,
    fraction: float,
    seed: int,
    most: int = MOST_HELD_OUT,
    *,
    groups: NDArray[np.int64] | None = None,
    judged: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the rows of videos at random.

    Args:
        count: number of videos.
        fraction: share of them to hold out.
        seed: seed of the draw.
        most: number of videos to hold out at most.
        groups: group of each video, (count,) from 0 on; the videos of a group stay together. A group that is
            larger than what is left to hold out is trained on.
        judged: mask of the videos to hold out from, (count,): half of them at most.

    Returns:
        Ascending rows to train on, and `fraction` of them to hold out, at least one and at most `most` where the
        groups allow it.

    Raises:
        InputError: fewer than two videos, or a fraction outside (0, 1).
    """
    size = held_out_size(count, fraction, most)
    if groups is None:
        groups = np.arange(count)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        warnings.warn(
            f"all {count} videos belong together, as the parts of one file do: a split parts them nevertheless, "
            "and the figures flatter every trained adapter. Add pairs of other files.",
            stacklevel=3,
        )
        groups, sizes = np.arange(count), np.ones(count, np.int64)
    order = np.random.default_rng(seed).permutation(len(sizes))
    if judged is not None:
        order = order[np.bincount(groups, judged)[order] > 0]
        size = min(size, int(judged.sum()) // 2)
    held, left = [], size
    for group in order.tolist():
        if sizes[group] <= left:
            held.append(group)
            left -= sizes[group]
        if not left:
            break
    if not held:
        held = [order[sizes[order].argmin()]]
    mask = np.isin(groups, held)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def held_out_size(count: int, fraction: float, most: int) -> int:
    """Return the number of videos to hold out of `count`; arguments as for `split_videos`."""
    if count < 2 or not 0 < fraction < 1:
        raise InputError(
            f"cannot hold out the share {fraction} of {counted(count, 'video')}; it takes pairs of two videos or "
            "more, and a share between 0 and 1."
        )
    return min(max(1, round(fraction * count)), count - 1, most)
