"""Checks of vectors that come from outside, arrays and tensors alike; torch is not needed for arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dits_adapter.errors import InputError

if TYPE_CHECKING:
    import torch


def check_vectors(vectors: np.ndarray | torch.Tensor, width: int) -> None:
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


def check_directions(vectors: np.ndarray | torch.Tensor) -> None:
    """Refuse zero vectors among (n, d), naming the first.

    Raises:
        InputError: a row is zero.
    """
    some = (vectors != 0).any(1)
    zero = np.flatnonzero(~(some if isinstance(some, np.ndarray) else some.cpu().numpy()))
    if len(zero):
        raise InputError(f"row {zero[0]} is the zero vector; it has no direction to adapt.")
