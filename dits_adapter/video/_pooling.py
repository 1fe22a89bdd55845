"""Pooling: frame vectors of a segment to the one vector that is stored and searched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dits_adapter.vectors import FloatArray, unit

__all__ = ["mean_pool"]


def mean_pool(frame_vectors: npt.ArrayLike) -> FloatArray:
    """Average unit frame vectors: (..., n, d) to (..., d) float32 of unit norm.

    Each frame vector is scaled to unit norm, then their mean is: CLIP4Clip's "meanP", the pooling that an
    `EmbeddingSpace` calls `mean`. It does not depend on the query, so it can be stored. (X-Pool weighs the
    frames by the query, and works on un-normalized vectors.)

    Raises:
        InputError: a frame vector without direction, or frames that cancel out.
    """
    return unit(unit(frame_vectors).mean(axis=-2, dtype=np.float64))
