"""The modality gap in numbers: δ = v − t of matching pairs, before, along and after an adapter (Eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter.adapters import DITSAdapter
from dits_adapter.errors import InputError
from dits_adapter.sampler import NoiseSchedule, TruncatedSampler
from dits_adapter.vectors import unit

__all__ = ["GapStatistics", "GapStep", "gap_steps", "with_noise"]


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

        Examples:
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


@dataclass(frozen=True)
class GapStep:
    """Distribution of the gap that step t of a sampler removes, N(χ_t ε, λ_t² I) (Eq. 9), and the gap it leaves.

    Attributes:
        t: timestep, from T' down to 1.
        bias: mean Euclidean norm of χ_t ε over the texts.
        scale: λ_t of the schedule, by which training multiplies its noise (times `noise_scale`); 0 for t = 1.
        left: statistics of the gap between v_{t−1} and the videos.
    """

    t: int
    bias: float
    scale: float
    left: GapStatistics


def gap_steps(adapter: DITSAdapter, text: NDArray[np.floating], video: NDArray[np.floating]) -> list[GapStep]:
    """Measure the steps of a sampler, without noise.

    Args:
        adapter: adapter with a trajectory.
        text: texts as the encoder gives them, (n, d).
        video: unit vector of each text's video, row by row, (n, d).

    Returns:
        T' steps, in the order in which they are taken.

    Raises:
        InputError: the sampler depends on the video.
    """
    config = adapter.config
    scales = NoiseSchedule.linear(config.timesteps, config.beta_start, config.beta_end).lam
    with torch.inference_mode():
        path = [point.numpy() for point in adapter.for_inference().trajectory(torch.as_tensor(text))]
    return [
        GapStep(
            t=t,
            bias=float(np.linalg.norm(before - after, axis=1).mean()),
            scale=float(scales[t - 1]) if t > 1 else 0.0,
            left=GapStatistics.of(unit(after), video),
        )
        for t, before, after in zip(range(config.steps, 0, -1), path, path[1:], strict=False)
    ]


def with_noise(
    adapter: DITSAdapter, text: NDArray[np.floating], scale: float, seed: int = 0
) -> NDArray[np.floating]:
    """Adapt texts (n, d) with the noise of Eq. 8 at inference too, from one seed: unit vectors (n, d).

    Args:
        adapter: adapter whose sampler is not folded.
        text: texts as the encoder gives them.
        scale: factor on λ_t z; 1 is the paper's sampler.
        seed: seed of the noise.

    Raises:
        InputError: a folded sampler, or one that depends on the video.
    """
    sampler = adapter.sampler
    if not isinstance(sampler, TruncatedSampler) or adapter.needs_video:
        raise InputError("noise takes a sampler of texts in the form in which it was trained.")
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        moved = sampler.eval()(torch.as_tensor(text), noise_scale=scale, generator=generator)
    return unit(moved.numpy())
