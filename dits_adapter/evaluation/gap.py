"""The modality gap in numbers: δ = v − t of matching pairs, before and after an adapter (Figs 3 to 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GapStatistics"]


@dataclass(frozen=True)
class GapStatistics:
    """Statistics of the modality gap: means over matching (text, video) pairs of unit vectors.

    Attributes:
        means_apart: distance between the mean text and the mean video vector.
        l2: mean Euclidean norm of δ.
        l1: mean sum of absolute entries of δ, the paper's "L1 gap".
        cosine: mean cosine of a pair.
        pairs: number of pairs.
    """

    means_apart: float
    l2: float
    l1: float
    cosine: float
    pairs: int

    @classmethod
    def of(cls, text: NDArray[np.floating], video: NDArray[np.floating]) -> GapStatistics:
        """Measure unit vectors of texts and of their videos, row by row, both (n, d).

        Example:
            >>> GapStatistics.of(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
            GapStatistics(means_apart=1.41..., l2=1.41..., l1=2.0, cosine=0.0, pairs=1)
        """
        delta = video.astype(np.float64) - text
        return cls(
            means_apart=float(np.linalg.norm(delta.mean(0))),
            l2=float(np.linalg.norm(delta, axis=1).mean()),
            l1=float(np.abs(delta).sum(1).mean()),
            cosine=float(np.sum(text.astype(np.float64) * video, axis=1).mean()),
            pairs=len(delta),
        )
