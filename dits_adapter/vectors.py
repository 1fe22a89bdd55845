"""Vectors: their types, checks of those that come from outside, and scaling to unit norm.

Arrays and tensors are checked alike; torch is not needed for arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dits_adapter._reprs import shown_repr
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["EmbeddedClips", "FloatArray", "check_directions", "check_vectors", "unit"]

FloatArray = NDArray[np.float32]
"""Array of float32; docstrings state its shape."""


@dataclass(frozen=True, eq=False)
class EmbeddedClips:
    """Embeddings of n clips, not normalized; at least one of the two is given.

    Attributes:
        pooled: one vector a clip, (n, d); None where the vectors of its frames are pooled instead.
        frames: the vectors of f frames a clip, (n, f, d); None for an encoder that sees clips as a whole.
    """

    pooled: FloatArray | None = None
    frames: FloatArray | None = None

    __repr__ = shown_repr


def check_vectors(vectors: NDArray[Any] | torch.Tensor, width: int) -> None:
    """Refuse vectors that are not (n, width) finite floats, naming the first bad row.

    Raises:
        InputError: wrong rank, width or dtype, or a NaN or infinite value.
    """
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise InputError(f"expected vectors of shape (n, {width}), got {tuple(vectors.shape)}.")
    if isinstance(vectors, np.ndarray):
        floating, finite = np.issubdtype(vectors.dtype, np.floating), np.isfinite(vectors).all(axis=1)
    else:
        floating, finite = vectors.is_floating_point(), vectors.isfinite().all(dim=1).cpu().numpy()
    if not floating:
        raise InputError(f"expected floating-point vectors, got {vectors.dtype}.")
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise InputError(
            f"row {bad[0]} holds NaN or infinite values ({len(bad)} such rows); remove or re-embed it."
        )


def check_directions(vectors: NDArray[Any] | torch.Tensor) -> None:
    """Refuse zero vectors among (n, d), naming the first.

    Raises:
        InputError: a row is zero.
    """
    nonzero = (vectors != 0).any(1)
    zero = np.flatnonzero(~(nonzero if isinstance(nonzero, np.ndarray) else nonzero.cpu().numpy()))
    if len(zero):
        raise InputError(f"row {zero[0]} is the zero vector; it has no direction to adapt.")


def unit(vectors: ArrayLike) -> FloatArray:
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
    scaled: FloatArray = (array / norms).astype(np.float32)
    return scaled
