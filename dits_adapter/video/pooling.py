"""Pooling: frame vectors of a segment to the one vector that is stored and searched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dits_adapter.errors import InputError

__all__ = ["mean_pool", "unit"]


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scale vectors to unit L2 norm along the last axis: (..., d) float32.

    Raises:
        InputError: a vector that is zero or not finite has no direction.

    >>> unit([3.0, 4.0]).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    array = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if not np.all((norms > 0) & np.isfinite(norms)):
        raise InputError("a vector that is zero, NaN or infinite cannot be scaled to unit norm.")
    scaled: npt.NDArray[np.float32] = (array / norms).astype(np.float32)
    return scaled


def mean_pool(frame_vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Average unit frame vectors: (..., n, d) to (..., d) float32 of unit norm.

    Each frame vector is scaled to unit norm, then their mean is: CLIP4Clip's "meanP", the pooling that an
    `EmbeddingSpace` calls `mean`. It does not depend on the query, so it can be stored. (X-Pool weighs the
    frames by the query, and works on un-normalized vectors.)

    Raises:
        InputError: a frame vector without direction, or frames that cancel out.
    """
    return unit(unit(frame_vectors).mean(axis=-2, dtype=np.float64))
