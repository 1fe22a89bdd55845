"""The noise schedule of the diffusion process behind Eq. 8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import shown_repr

__all__ = ["NoiseSchedule"]


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise schedule: β and its derived coefficients, float64, index t − 1 for timestep t = 1 … T.

    Attributes:
        beta: variance added at each step, (T,); linear from `beta_start` to `beta_end`.
        alpha: α_t = 1 − β_t.
        alpha_bar: ᾱ_t = α_1 … α_t.
        chi: χ_t = (1 − α_t) / √(α_t − α_t ᾱ_t), the length of step t along the network's output (Eq. 8).
        lam: λ_t = √β_t, the scale of the noise of step t (Eq. 8).

    Examples:
        >>> schedule = NoiseSchedule.linear(timesteps=10, beta_start=0.1, beta_end=0.99)
        >>> schedule.chi.round(4).tolist()
        [0.3333, 0.4207, 0.5057, 0.6128, 0.7586, 0.964, 1.2642, 1.7415, 2.7011, 9.9]
    """

    beta: NDArray[np.float64]
    alpha: NDArray[np.float64]
    alpha_bar: NDArray[np.float64]
    chi: NDArray[np.float64]
    lam: NDArray[np.float64]

    __repr__ = shown_repr

    @classmethod
    def linear(cls, timesteps: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Build the paper's schedule: β linear over T timesteps (0.1 to 0.99 over ten in the paper)."""
        beta = np.linspace(beta_start, beta_end, timesteps).astype(np.float64)
        alpha = 1 - beta
        alpha_bar = np.cumprod(alpha).astype(np.float64)
        chi = (1 - alpha) / np.sqrt(alpha - alpha * alpha_bar)
        return cls(beta, alpha, alpha_bar, chi, np.sqrt(beta))
