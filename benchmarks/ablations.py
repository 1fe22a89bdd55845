"""The paper's ablations on cached vectors: the rows of each, as recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.compare import PLAIN, schedule, tried
from dits_adapter.training.config import Recipe, TrainingConfig

TIMESTAMPS = (1, 5, 10, 15, 20, 30, 40)
PAIRED_BATCH = 32
"""The paper's batch size. An adapter that sees the video runs on every pair of a batch."""

Recipes = dict[str, list[Recipe]]


def timestamps(training: TrainingConfig) -> Recipes:
    """T' = 0 (plain CLIP) to 40, each trained as a sampler of its own (Table 8)."""
    return {f"dits-{n}": tried(training, sampler=schedule(n)) for n in TIMESTAMPS}


def noise(training: TrainingConfig) -> Recipes:
    """Noise in training on or off, on unit text and on text as CLIP gives it, the paper's input.

    `noisy_at_inference` adds the same adapters with the noise on when they are used. The paper has no such table.
    """
    return {
        f"dits-{name}-{form}": tried(training, sampler={"noise_scale": scale, "input": form})
        for scale, name in ((0.0, "quiet"), (1.0, "noisy"))
        for form in ("unit", "raw")
    }


def condition(training: TrainingConfig) -> Recipes:
    """What the network sees beside v_t and t (Table 6a). With the video, every pair is a query of its own."""
    paired = training.model_copy(update={"batch_size": PAIRED_BATCH})
    seen = ("text", "video", "both", "none")
    return {f"dits-condition-{name}": tried(paired, sampler={"condition": name}) for name in seen}


def gap(training: TrainingConfig) -> Recipes:
    """Which way the gap points (Table 6b), for vanilla diffusion.

    For DITS it is the sign of an output that starts at zero: two names of one model.
    """
    return {
        f"diffusion-{way}": tried(training, adapter="diffusion", options={"direction": way})
        for way in ("t-v", "v-t")
    }


def prior(training: TrainingConfig) -> Recipes:
    """Where the gap comes from (Tables 4 and 5): a fixed prior, vanilla diffusion, or DITS."""
    rows = {
        f"fixed-prior-{variance:g}": [
            Recipe(adapter="fixed-prior", options={"variance": variance}, training=training)
        ]
        for variance in (1.0, 0.1)
    }
    for objective in ("l2", "l1"):
        rows[f"diffusion-{objective}"] = tried(
            training, adapter="diffusion-pretrained", options={"objective": objective}
        )
    rows["diffusion-fine-tuned"] = tried(training, adapter="diffusion")
    rows["dits-10"] = tried(training, sampler=schedule(10))
    return rows


ABLATIONS: Mapping[str, Callable[[TrainingConfig], Recipes]] = {
    "timestamps": timestamps,
    "noise": noise,
    "condition": condition,
    "gap": gap,
    "prior": prior,
}


def rows_of(ablation: str, training: TrainingConfig) -> Recipes:
    """Return the rows of an ablation, plain CLIP first."""
    return {PLAIN: [Recipe(adapter=PLAIN)], **ABLATIONS[ablation](training)}


class NoisyDITS(Adapter):
    """A trained sampler that draws its noise at inference too, from one seed, as the paper's text has it."""

    kind: ClassVar[str] = "noisy-dits"
    Config: ClassVar[type[SamplerConfig]] = SamplerConfig
    config: SamplerConfig

    def __init__(self, adapter: DITSAdapter) -> None:
        super().__init__()
        self.config = adapter.config
        self.sampler = adapter.eval().sampler

    def forward(self, text: Tensor) -> Tensor:
        """Run Eq. 8 with λ_t z on (n, d)."""
        generator = torch.Generator(text.device).manual_seed(0)
        return self.sampler(text, noise_scale=1.0, generator=generator)


def noisy_at_inference(adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Return the samplers among some adapters once more, with the noise on."""
    return {f"{name}, noise on": NoisyDITS(a) for name, a in adapters.items() if isinstance(a, DITSAdapter)}
