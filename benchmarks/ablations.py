"""The paper's ablations on cached vectors: which adapters each of them trains.

Not here yet: conditions that see the video, the direction of the gap, fixed priors and vanilla diffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.compare import PLAIN, Fit, sampler_of
from dits_adapter.training.frozen import fit_closed_form

ByGradient = Callable[[Callable[[], Adapter]], Fit]
"""Turns what builds an adapter into what trains one."""

TIMESTAMPS = (1, 5, 10, 15, 20, 30, 40)


def timestamps(width: int, trained: ByGradient) -> dict[str, Fit]:
    """T' = 0 (plain CLIP) to 40, each trained as a sampler of its own (Table 8)."""
    return _plain() | {f"dits-{n}": trained(partial(DITSAdapter, sampler_of(width, n))) for n in TIMESTAMPS}


def noise(width: int, trained: ByGradient) -> dict[str, Fit]:
    """Noise in training on or off, on unit text and on text as CLIP gives it (the paper's input).

    `noisy_at_inference` adds the same adapters with the noise left on when they are used.
    """
    fits = _plain()
    for scale, name in ((0.0, "quiet"), (1.0, "noisy")):
        for form in ("unit", "raw"):
            config = SamplerConfig.model_validate({"width": width, "noise_scale": scale, "input": form})
            fits[f"dits-{name}-{form}"] = trained(partial(DITSAdapter, config))
    return fits


def condition(width: int, trained: ByGradient) -> dict[str, Fit]:
    """What the network sees beside v_t and t (Table 6a): nothing, or the text."""
    configs = {"none": sampler_of(width, 10), "text": SamplerConfig(width=width, condition="text")}
    return _plain() | {f"dits-condition-{name}": trained(partial(DITSAdapter, c)) for name, c in configs.items()}


ABLATIONS: Mapping[str, Callable[[int, ByGradient], dict[str, Fit]]] = {
    "timestamps": timestamps,
    "noise": noise,
    "condition": condition,
}


class NoisyDITS(Adapter):
    """A trained sampler that draws its noise at inference too, from one seed, as the paper's text has it."""

    kind: ClassVar[str] = "noisy-dits"
    Config: ClassVar[type[SamplerConfig]] = SamplerConfig
    config: SamplerConfig

    def __init__(self, adapter: DITSAdapter) -> None:
        super().__init__()
        self.config = adapter.config
        self.sampler = adapter.for_inference().sampler

    def forward(self, text: Tensor) -> Tensor:
        """Run Eq. 8 with λ_t z on (n, d)."""
        generator = torch.Generator(text.device).manual_seed(0)
        return self.sampler(text, noise_scale=1.0, generator=generator)


def noisy_at_inference(adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Return the samplers among some adapters once more, with the noise on."""
    return {f"{name}, noise on": NoisyDITS(a) for name, a in adapters.items() if isinstance(a, DITSAdapter)}


def _plain() -> dict[str, Fit]:
    return {PLAIN: partial(fit_closed_form, PLAIN)}
