"""Ablations on cached vectors, the paper's and that of the preset `best`: the recipe of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dits_adapter.adapters import Adapter, DITSAdapter, VideoSideDITSAdapter
from dits_adapter.evaluation.comparison import PLAIN
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import PAPER_SAMPLER, Recipe, TrainingConfig
from dits_adapter.training.rows import best_mlp_recipe, best_recipe, schedule

TIMESTAMPS = (1, 5, 10, 15, 20, 30, 40)
PAIRED_BATCH = 32
"""Batch size of the paper, for adapters that see the video: they run on every pair of a batch."""

Recipes = dict[str, Recipe]


def timestamps(training: TrainingConfig) -> Recipes:
    """Return samplers of T' = 1 to 40, each trained on its own (Table 8), without noise and with noise.

    The noisy samplers are the paper's: they take the text as CLIP gives it, for the noise drowns a unit vector.
    """
    quiet = {f"dits-{n}": Recipe(training=training, sampler=schedule(n)) for n in TIMESTAMPS}
    noisy = {
        f"dits-{n}-noisy": Recipe(training=training, sampler={**PAPER_SAMPLER, **schedule(n)}) for n in TIMESTAMPS
    }
    return quiet | noisy


def noise(training: TrainingConfig) -> Recipes:
    """Return samplers with and without noise in training, on unit text and on raw text, the paper's input.

    `noisy_at_inference` adds the same adapters with noise at inference. The paper has no such table.
    """
    return {
        f"dits-{name}-{form}": Recipe(training=training, sampler={"noise_scale": scale, "input": form})
        for scale, name in ((0.0, "quiet"), (1.0, "noisy"))
        for form in ("unit", "raw")
    }


def condition(training: TrainingConfig) -> Recipes:
    """Return samplers of each condition (Table 6a). With the video, every pair is a query of its own."""
    paired = training.model_copy(update={"batch_size": PAIRED_BATCH})
    conditions = ("text", "video", "both", "none")
    return {f"dits-condition-{name}": Recipe(training=paired, sampler={"condition": name}) for name in conditions}


def gap(training: TrainingConfig) -> Recipes:
    """Return a sampler on either side (Table 6b): δ = t − v moves the videos to the texts, δ = v − t the texts.

    On the text's side alone, the direction would be the sign of an output that starts at zero: two names of one
    model.
    """
    paired = training.model_copy(update={"batch_size": PAIRED_BATCH})
    return {
        "dits-t-v": Recipe(training=paired, adapter=VideoSideDITSAdapter.kind),
        "dits-v-t": Recipe(training=paired),
    }


def prior(training: TrainingConfig) -> Recipes:
    """Return adapters of each source of the gap (Tables 4 and 5): a fixed prior, vanilla diffusion, or DITS."""
    rows = {
        f"fixed-prior-{variance:g}": Recipe(
            training=training, adapter="fixed-prior", options={"variance": variance}
        )
        for variance in (1.0, 0.1)
    }
    for objective in ("l2", "l1"):
        rows[f"diffusion-{objective}"] = Recipe(
            training=training, adapter="diffusion-pretrained", options={"objective": objective}
        )
    rows["diffusion-fine-tuned"] = Recipe(training=training, adapter="diffusion")
    rows["dits-10"] = Recipe(training=training, sampler=schedule(10))
    return rows


def best(training: TrainingConfig) -> Recipes:
    """Return the strongest cheap adapters, the preset `best`, and variants of `best` without one choice each.

    `mlp-best` leaves out the flow itself; `best-large` is the preset `large`.
    """
    whole = best_recipe(training)

    def without(sampler: dict[str, Any] | None = None, **optimization: Any) -> Recipe:
        return whole.model_copy(
            update={
                "sampler": {**whole.sampler, **(sampler or {})},
                "training": whole.training.model_copy(update=optimization),
            }
        )

    small, large = whole.training.learning_rate
    cheap = {name: Recipe(adapter=name, training=training) for name in ("ridge", "contrastive-linear", "mlp")}
    return cheap | {
        "mlp-best": best_mlp_recipe(training),
        "dits-best": whole,
        "best-from-text": without({"start": "text"}),
        "best-small-rate": without(learning_rate=(small,)),
        "best-large-rate": without(learning_rate=(large,)),
        "best-no-ema": without(ema=0.0),
        "best-1-step": without({"steps": 1}),
        "best-5-steps": without({"steps": 5}),
        "best-4-blocks": without({"depth": 4}),
        "best-wide": without({"mlp_ratio": 4.0}),
        "best-large": without({"depth": 4, "mlp_ratio": 4.0}),
        "best-dropout": without({"dropout": 0.1}),
        "best-noise": without({"noise_scale": 0.01}),
        "best-hard-negatives": without(hard_negatives=0.25),
    }


ABLATIONS: Mapping[str, Callable[[TrainingConfig], Recipes]] = {
    "timestamps": timestamps,
    "noise": noise,
    "condition": condition,
    "gap": gap,
    "prior": prior,
    "best": best,
}


def rows_of(ablation: str, training: TrainingConfig) -> Recipes:
    """Return the rows of an ablation, plain CLIP first."""
    return {PLAIN: Recipe(adapter=PLAIN), **ABLATIONS[ablation](training)}


class NoisyDITS(Adapter):
    """Trained sampler that draws its noise at inference too, from one seed, as in the paper's text."""

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
    """Return a noisy copy of each sampler among some adapters."""
    return {f"{name}, noise on": NoisyDITS(a) for name, a in adapters.items() if isinstance(a, DITSAdapter)}
