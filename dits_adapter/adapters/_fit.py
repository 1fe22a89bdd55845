"""Result of a cross-validated fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dits_adapter.adapters.base import Adapter
from dits_adapter.vectors import FloatArray

__all__ = ["GentleFit", "Start"]


@dataclass(frozen=True)
class Start:
    """Affine map towards the identity: q' = (q − b · mean) + s · (q − mean) W.

    Attributes:
        penalty: weight of ‖W‖² relative to the number of pairs.
        centering: part b of the mean of the texts that is taken away.
        strength: part s of W that is added.
        rotation: True where I + W is a rotation (Procrustes), False for a ridge.
    """

    penalty: float
    centering: float
    strength: float
    rotation: bool = False


@dataclass(frozen=True, eq=False)
class GentleFit:
    """Adapter of a few pairs, and what cross-validation chose for it.

    Attributes:
        adapter: fitted to all pairs; the affine map of the start where no step helped.
        rows: texts that were held out and chosen by, ascending, (k,): all that judge up to 1,000, a part of about
            a thousand above.
        out_of_fold: these texts, each adapted by an adapter that was fitted without its video, unit vectors
            (k, d): the queries for a bank behind the adapter.
        start: the map that training began at.
        steps: number of contrastive steps from there.
        gain: mean reciprocal rank of the held-out texts over plain CLIP, adapted out of fold. It was chosen as
            the best of many, and so flatters a little.
        error: standard error of the gain over videos.
    """

    adapter: Adapter
    rows: NDArray[np.int64]
    out_of_fold: FloatArray
    start: Start
    steps: int
    gain: float
    error: float

    def choice(self) -> dict[str, float]:
        """Return what was chosen and what it gained on held-out texts, as plain JSON for an artifact's record."""
        start = self.start
        return {
            "penalty": start.penalty,
            "centering": start.centering,
            "strength": start.strength,
            "rotation": start.rotation,
            "steps": self.steps,
            "held_out_mrr_gain": round(self.gain, 4),
            "standard_error": round(self.error, 4),
        }
