"""Rows of the runs that train CLIP along: the paper's settings by dataset, its main table and its ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.ablations import TIMESTAMPS
from benchmarks.datasets import Dataset
from dits_adapter.adapters import VideoSideDITSAdapter
from dits_adapter.errors import InputError
from dits_adapter.training.config import JointRecipe, Recipe, TrainingConfig
from dits_adapter.training.rows import best_recipe, schedule

UNTRAINED = ""
"""Name of the CLIP that the runs start from, in the place of a row's."""

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "msrvtt": {},
    "didemo": {"learning_rate": "1e-5", "sampler.steps": "5"},
}
"""Settings of the paper by dataset, beyond the preset `paper`: 1e-5 for CLIP and 3e-5 for the rest on MSR-VTT,
1e-5 for both elsewhere; T' = 5 on DiDeMo, read as t = 5 … 1 of the schedule of T = 10."""

ELSEWHERE: Mapping[str, str] = {"learning_rate": "1e-5"}


@dataclass(frozen=True)
class OnVectors:
    """Row whose adapter is trained on the vectors of a CLIP that stays as it is.

    Attributes:
        recipe: recipe of the adapter.
        clip: row that trained the CLIP; `UNTRAINED` for the one that the runs start from.
    """

    recipe: Recipe
    clip: str = UNTRAINED


JointRows = dict[str, JointRecipe | OnVectors]


def settings(dataset: Dataset, chosen: Mapping[str, str]) -> JointRecipe:
    """Return the recipe of DITS on a dataset: the paper's settings, with others where they are chosen.

    Raises:
        InputError: an unknown setting or value.
    """
    span = {} if dataset.span is None else {"limit": str(dataset.span[1])}
    return JointRecipe.read("paper", settings={**SETTINGS.get(dataset.name, ELSEWHERE), **span, **chosen})


def rows_of(ablation: str | None, joint: JointRecipe, only: Sequence[str] | None = None) -> JointRows:
    """Return the rows of the main table, or of an ablation, by name.

    Args:
        ablation: a key of `ABLATIONS`; None for the main table.
        joint: recipe of DITS on the dataset.
        only: names of the rows to return, with those whose CLIP they need; all by default.

    Raises:
        InputError: a name in `only` that is no row.
    """
    rows = main(joint) if ablation is None else ABLATIONS[ablation](joint)
    if only is None:
        return rows
    if unknown := [name for name in only if name not in rows]:
        raise InputError(f"--only {' '.join(unknown)}: no such row; there are {', '.join(rows)}")
    needed = {row.clip for name, row in rows.items() if name in only and isinstance(row, OnVectors)}
    return {name: row for name, row in rows.items() if name in only or name in needed}


def main(joint: JointRecipe) -> JointRows:
    """Return DITS, X-Pool, and DITS on the vectors of a CLIP that is not fine-tuned (Tables 1 to 3, 5b and 9)."""
    return {
        "dits": joint,
        "x-pool": _without_steps(joint),
        "dits-fixed-clip": OnVectors(Recipe(sampler=joint.sampler, training=_on_vectors(joint))),
    }


def timestamps(joint: JointRecipe) -> JointRows:
    """Return samplers of T' = 0 to 40 (Tables 5a and 8)."""
    return {
        "x-pool": _without_steps(joint),
        **{f"dits-{n}": _varied(joint, sampler={**joint.sampler, **schedule(n)}) for n in TIMESTAMPS},
    }


def condition(joint: JointRecipe) -> JointRows:
    """Return samplers of each condition (Table 6a); the video is the one that X-Pool pools under the text."""
    conditions = ("text", "video", "both", "none")
    return {
        f"dits-condition-{name}": _varied(joint, sampler={**joint.sampler, "condition": name})
        for name in conditions
    }


def gap(joint: JointRecipe) -> JointRows:
    """Return a sampler on either side: δ = t − v moves the pooled videos, δ = v − t the texts (Table 6b)."""
    return {"dits-t-v": _varied(joint, adapter=VideoSideDITSAdapter.kind), "dits-v-t": joint}


def prior(joint: JointRecipe) -> JointRows:
    """Return the sources of the gap (Tables 4 and 7): none, a fixed prior, vanilla diffusion, DITS.

    `diffusion-l2` and `diffusion-l1` are pre-trained on the vectors of X-Pool's CLIP, and stay so;
    `diffusion-fine-tuned` is pre-trained on those of the CLIP to start from, then trained along with it.
    """
    training = _on_vectors(joint)
    rows: JointRows = {"x-pool": _without_steps(joint)}
    for variance in (1.0, 0.1):
        options = {"variance": variance}
        rows[f"fixed-prior-{variance:g}"] = _varied(joint, adapter="fixed-prior", options=options, sampler={})
    for objective in ("l2", "l1"):
        rows[f"diffusion-{objective}"] = OnVectors(
            Recipe(adapter="diffusion-pretrained", options={"objective": objective}, training=training), "x-pool"
        )
    rows["diffusion-fine-tuned"] = _varied(joint, adapter="diffusion", sampler={}, pretraining=training)
    return {**rows, "dits": joint}


def noise(joint: JointRecipe) -> JointRows:
    """Return samplers with and without noise in training, on unit and on raw text. The paper has no such table."""
    return {
        f"dits-{name}-{form}": _varied(joint, sampler={**joint.sampler, "noise_scale": scale, "input": form})
        for scale, name in ((0.0, "quiet"), (1.0, "noisy"))
        for form in ("unit", "raw")
    }


def serving(joint: JointRecipe) -> JointRows:
    """Return joint training for an index and for X-Pool, without noise, beside adapters of a CLIP as it is.

    The paper has no such table.
    """
    quiet = _varied(joint, sampler={**joint.sampler, "noise_scale": 0.0})
    training = TrainingConfig(seed=joint.seed)
    return {
        "linear-fixed-clip": OnVectors(Recipe(adapter="contrastive-linear", training=training)),
        "best-fixed-clip": OnVectors(best_recipe(training)),
        "dits-for-index": _varied(quiet, loss="index", select="index"),
        "dits-for-both": _varied(quiet, loss="both", select="index"),
        "dits-for-xpool": _varied(quiet, loss="xpool", select="xpool"),
    }


ABLATIONS: Mapping[str, Callable[[JointRecipe], JointRows]] = {
    "timestamps": timestamps,
    "condition": condition,
    "gap": gap,
    "prior": prior,
    "noise": noise,
    "serving": serving,
}


def _varied(joint: JointRecipe, **fields: Any) -> JointRecipe:
    return JointRecipe.model_validate({**joint.model_dump(), **fields})


def _without_steps(joint: JointRecipe) -> JointRecipe:
    """Return X-Pool itself: T' = 0, so that the text stays where it is."""
    return _varied(joint, sampler={**joint.sampler, "steps": 0})


def _on_vectors(joint: JointRecipe) -> TrainingConfig:
    """Return the optimization of an adapter on vectors: that of the joint training."""
    shared = joint.model_dump(include={"epochs", "batch_size", "weight_decay", "warmup", "gradient_norm", "seed"})
    return TrainingConfig(learning_rate=(joint.learning_rate,), validation=joint.validation, **shared)
