"""How an adapter is trained on cached vectors: one validated recipe, three presets."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dits_adapter.errors import InputError
from dits_adapter.sampler import SamplerConfig


class TrainingConfig(BaseModel):
    """Optimisation in the frozen mode: AdamW, linear warm-up, cosine to zero, best validation epoch kept.

    Attributes:
        epochs: passes over all (text, video) pairs.
        batch_size: pairs a step; each is contrasted with all others of the batch.
        learning_rate: peak learning rate.
        weight_decay: AdamW's, on matrices only.
        warmup: share of all steps that warm up linearly.
        temperature: initial temperature of the loss, learned along (CLIP starts at 0.07).
        gradient_norm: gradients are clipped to this norm.
        ema: decay of an exponential moving average of the weights, which is then what is kept; 0 is none.
        hard_negatives: share of each batch that is drawn from the ten nearest videos of its other members.
        patience: epochs without a better validation before training stops early; 0 runs all.
        validation: share of the videos that is held out to choose the epoch.
        bf16: compute in bfloat16 (autocast); weights and optimiser stay float32.
        seed: of initial weights, batches, noise and the held-out videos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=0.07, ge=0.01)
    gradient_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    hard_negatives: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    validation: float = Field(default=0.1, gt=0, lt=1)
    bf16: bool = False
    seed: int = Field(default=24, ge=0)


class Recipe(BaseModel):
    """A whole training run but for the data: which adapter, its definition, its optimisation.

    Attributes:
        adapter: `dits`, `mlp` or `contrastive-linear`, or one in closed form: `mean-shift`, `procrustes`, `ridge`.
        sampler: fields of `SamplerConfig` other than the width, which the data gives; for `dits` only.
        training: the optimisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str = "dits"
    sampler: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()

    @field_validator("sampler")
    @classmethod
    def _known_fields(cls, sampler: dict[str, Any]) -> dict[str, Any]:
        SamplerConfig.model_validate({**sampler, "width": 1})
        return sampler

    def sampler_config(self, width: int) -> SamplerConfig:
        """Return the definition of the sampler at a width."""
        return SamplerConfig.model_validate({**self.sampler, "width": width})

    @classmethod
    def read(
        cls, preset: str, file: str | PathLike[str] | None = None, settings: dict[str, str] | None = None
    ) -> Recipe:
        """Combine a preset, a YAML file with any of the fields, and single settings; the last one counts.

        Args:
            preset: a key of `PRESETS`.
            file: YAML with the keys `adapter`, `sampler` and `training`.
            settings: dotted names to values in YAML syntax, `{"training.epochs": "10"}`.

        Raises:
            InputError: an unknown preset, field or value, with what is accepted.

        Example:
            >>> Recipe.read("deterministic", settings={"sampler.steps": "5"}).sampler["steps"]
            5
        """
        import yaml

        if preset not in PRESETS:
            raise InputError(f"preset {preset!r} is unknown; there are {', '.join(PRESETS)}.")
        fields = PRESETS[preset].model_dump()
        try:
            given = yaml.safe_load(Path(file).read_text("utf-8")) or {} if file else {}
            if not isinstance(given, dict):
                raise InputError(f"{file}: expected the keys adapter, sampler and training.")
            for dotted, value in (settings or {}).items():
                section, _, name = dotted.rpartition(".")
                target = given.setdefault(section, {}) if section else given
                target[name] = yaml.safe_load(value)
            for key, value in given.items():
                fields[key] = {**fields.get(key, {}), **value} if isinstance(value, dict) else value
            return cls.model_validate(fields)
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{file or 'the settings'}: {error}") from None


PRESETS = {
    "paper": Recipe(
        sampler={"noise_scale": 1.0, "input": "raw"},
        training=TrainingConfig(epochs=5, batch_size=32, learning_rate=3e-5),
    ),
    "deterministic": Recipe(),
}
"""`paper`: Eq. 8 with its noise on un-normalised text, X-Pool's optimisation (METHOD: batch 32, 5 epochs, 3e-5).
`deterministic`: no noise, unit text, and an optimisation for cached vectors, where large batches are cheap."""
