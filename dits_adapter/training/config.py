"""Recipes of training, on cached vectors or together with CLIP, and their presets."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from dits_adapter._user_files import parse_yaml, read_yaml
from dits_adapter._wording import field_names, validated
from dits_adapter.adapters import Adapter, adapter_entry, fresh_adapter
from dits_adapter.data._splits import MOST_HELD_OUT
from dits_adapter.errors import InputError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.texts import TextCleaning

__all__ = [
    "JOINT_PRESETS",
    "PAPER_SAMPLER",
    "PRESETS",
    "SMALL_DEPTH",
    "SMALL_MLP_RATIO",
    "BaseRecipe",
    "JointLoss",
    "JointRecipe",
    "JointSelection",
    "Precision",
    "Recipe",
    "TrainingConfig",
]

JointLoss = Literal["xpool", "index", "both"]
"""Similarities of the loss of joint training."""

JointSelection = Literal["index", "xpool"]
"""Scores by which joint training chooses its checkpoint."""

R = TypeVar("R", bound="BaseRecipe")

Precision = Literal["auto", "float32", "bfloat16"]
"""Precision of the products of matrices in training."""

_SAMPLER_FIELDS = tuple(name for name in field_names(SamplerConfig) if name not in ("width", "text_width"))


class TrainingConfig(BaseModel):
    """Optimization in the frozen mode: AdamW, linear warm-up, cosine to zero, best validation epoch kept.

    Attributes:
        epochs: passes over all (text, video) pairs.
        batch_size: pairs a step; each is contrasted with all others of the batch.
        learning_rate: peak learning rate. Of several, each is tried from the same start, and the adapter that is
            best on the validation pairs is kept: no single rate suits both few pairs and many.
        weight_decay: weight decay of AdamW, on matrices only.
        warmup: share of all steps that warm up linearly.
        temperature: initial temperature of the loss, learned along (CLIP starts at 0.07).
        gradient_norm: gradients are clipped to this norm.
        ema: decay of an exponential moving average of the weights, which is kept in their place; 0 for none.
        hard_negatives: share of each batch that is drawn from the ten nearest videos of its other members.
        patience: number of epochs without a better validation after which training stops early; 0 for never.
        validation: share of the videos that is held out to choose the epoch.
        most_held_out: videos that are held out at most to choose by, and to measure on.
        precision: `bfloat16` or `float32`, of the products of matrices; weights, sums and optimizer stay float32.
            `auto` is bfloat16 for DITS from width 128 on, where the processor has units for it (AMX, AVX-512 BF16,
            a GPU's tensor cores).
        seed: seed of initial weights, batches, noise and the held-out videos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: tuple[PositiveFloat, ...] = Field(default=(5e-4,), min_length=1)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=0.07, ge=0.01)
    gradient_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    hard_negatives: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    validation: float = Field(default=0.1, gt=0, lt=1)
    most_held_out: int = Field(default=MOST_HELD_OUT, ge=1)
    precision: Precision = "auto"
    seed: int = Field(default=24, ge=0)

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _several(cls, rate: Any) -> Any:
        return rate if isinstance(rate, (tuple, list)) else (rate,)


class BaseRecipe(BaseModel):
    """Base of the recipes of both modes: the adapter, and the combination of presets, files and settings.

    Attributes:
        presets: recipes to start from, by name.
        adapter: name of a registered adapter: `dits`; to compare it with, `contrastive-linear`, `mlp`,
            `low-rank-affine`, `fixed-prior`, `diffusion`; in frozen mode also `diffusion-pretrained`, and in
            closed form `mean-shift`, `procrustes` and `ridge`; for few pairs `gentle-linear`, `gentle-mlp` and
            `gentle-dits`; or your own (`register_adapter`).
        options: fields of the adapter's config, other than the width and those that the name fixes:
            `{"depth": 2}`, `{"variance": 1.0}`, `{"objective": "l1"}`.
        sampler: fields of `SamplerConfig` other than the width, in the place of options for `dits` and any other
            adapter whose config is a `SamplerConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    presets: ClassVar[Mapping[str, BaseRecipe]]

    adapter: str = "dits"
    options: dict[str, Any] = Field(default_factory=dict)
    sampler: dict[str, Any] = Field(default_factory=dict)

    @field_validator("sampler")
    @classmethod
    def _known_fields(cls, sampler: dict[str, Any]) -> dict[str, Any]:
        validated(SamplerConfig, {**sampler, "width": 1}, at="sampler.", names=_SAMPLER_FIELDS)
        return sampler

    def sampler_config(self, width: int) -> SamplerConfig:
        """Return the definition of the sampler at a width."""
        return validated(SamplerConfig, {**self.sampler, "width": width})

    def build_adapter(self, width: int, text_width: int | None = None) -> Adapter:
        """Build the untrained adapter; `torch.manual_seed` decides its initial weights.

        Args:
            width: dimension d of the videos.
            text_width: dimension of the texts, where they are of another space.

        Raises:
            InputError: an unknown adapter, one that is fitted in closed form, or wrong options.
        """
        if adapter_entry(self.adapter).adapter.Config is not SamplerConfig:
            return fresh_adapter(self.adapter, width, self.options, text_width=text_width)
        if self.options:
            raise InputError(f"adapter {self.adapter!r} takes no options; it is defined by its sampler.")
        return fresh_adapter(self.adapter, width, self.sampler, text_width=text_width)

    @classmethod
    def read(
        cls: type[R],
        preset: str,
        file: str | PathLike[str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> R:
        """Combine a preset, a YAML file with any of the fields, and single settings; the last one counts.

        Args:
            preset: a key of `presets`.
            file: YAML with any of the recipe's fields.
            settings: dotted names to values in YAML syntax, `{"training.epochs": "10"}`.

        Raises:
            InputError: an unknown preset, field or value, with what is accepted.

        Examples:
            >>> Recipe.read("deterministic", settings={"sampler.steps": "5"}).sampler["steps"]
            5
        """
        if preset not in cls.presets:
            raise InputError(f"preset {preset!r} is unknown; there are {', '.join(cls.presets)}.")
        fields = cls.presets[preset].model_dump()
        overrides = [] if file is None else [_read_file(file, cls)]
        overrides += [_nested(name, value) for name, value in (settings or {}).items()]
        for given in overrides:
            for key, value in given.items():
                known = fields.get(key)
                if isinstance(known, dict) and not isinstance(value, dict):
                    raise InputError(f"{file or 'the settings'}: {key} is {value!r:.60}, not fields: {key}.NAME.")
                fields[key] = {**known, **value} if isinstance(known, dict) else value
        names = [*field_names(cls), *(f"sampler.{name}" for name in _SAMPLER_FIELDS)]
        try:
            return validated(cls, fields, names=names)
        except InputError as error:
            sources = [*([] if file is None else [str(file)]), *(["the settings"] if settings else [])]
            raise InputError(f"{' and '.join(sources)}: {error}") from None


def _read_file(file: str | PathLike[str], recipe: type[BaseRecipe]) -> dict[str, Any]:
    """Read a YAML file with fields of a recipe.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    fields = read_yaml(file) or {}
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise InputError(f"{file}: expected any of the keys {', '.join(recipe.model_fields)}.")
    return fields


def _nested(dotted: str, value: str) -> dict[str, Any]:
    """Return a setting as a recipe has it: `training.epochs` and "3" to `{"training": {"epochs": 3}}`.

    Raises:
        InputError: the value is no YAML.
    """
    nested = parse_yaml(value, f"--set {dotted}={value}")
    for name in reversed(dotted.split(".")):
        nested = {name: nested}
    return nested


class Recipe(BaseRecipe):
    """Recipe of a training run on cached vectors: the adapter, its definition and its optimization.

    Attributes:
        training: the optimization; a gentle adapter, which chooses by folds of its own, uses the seed and the
            share of the validation videos alone.
        bank: bank of the texts of the pairs, each adapted by an adapter that has not seen its video: `none`;
            `queries`, behind the adapter (`QueryBankAdapter`); in comparisons also `scores`, a score bias of the
            searched videos (`score_bias`), or `both`. Not for adapters in closed form, other than plain CLIP.
    """

    training: TrainingConfig = TrainingConfig()
    bank: Literal["none", "queries", "scores", "both"] = "none"


PAPER_SAMPLER = {"noise_scale": 1.0, "input": "raw"}
"""Fields of `SamplerConfig` as in the paper: noise in training, and text as the encoder gives it."""

SMALL_DEPTH, SMALL_MLP_RATIO = 1, 1.0
"""Network of a sampler that is fast at all steps: one block, whose MLP is as wide as its input. Ten steps of it
take a query through 42 d × d matrices, those of the paper's network through 372 (docs/best.md)."""

_BEST = TrainingConfig(learning_rate=(3e-5, 5e-4), ema=0.95, patience=8)

PRESETS = {
    "paper": Recipe(
        sampler=PAPER_SAMPLER,
        training=TrainingConfig(epochs=5, batch_size=32, learning_rate=(3e-5,)),
    ),
    "deterministic": Recipe(),
    "best": Recipe(
        sampler={"depth": SMALL_DEPTH, "mlp_ratio": SMALL_MLP_RATIO, "start": "affine"}, training=_BEST
    ),
    "large": Recipe(sampler={"start": "affine"}, training=_BEST),
    "gentle-linear": Recipe(adapter="gentle-linear"),
    "gentle-mlp": Recipe(adapter="gentle-mlp"),
    "gentle-dits": Recipe(adapter="gentle-dits"),
}
"""Recipes on cached vectors by name.

`paper`: Eq. 8 with its noise on un-normalized text, X-Pool's optimization (batch 32, 5 epochs, 3e-5).
`deterministic`: no noise, unit text, and an optimization for cached vectors, where large batches are cheap.
`best`: no noise, and a start at the best cheap map instead of the text (`Adapter.initialize`), refined with a
small learning rate (on few pairs a large rate ruins a good start within an epoch) and with a large one (which
improves on a linear map where that is not enough); the validation pairs choose. Its network is small: a query
costs little beside the text encoder. Reasons and experiments: docs/best.md.
`large`: `best` with the paper's network.
`gentle-linear`, `gentle-mlp`, `gentle-dits`: for few pairs. A ridge towards the identity and a few full-batch
steps from there, all chosen by cross-validation (docs/bank.md)."""
Recipe.presets = PRESETS


class JointRecipe(BaseRecipe):
    """Recipe of a joint training of CLIP, X-Pool head and alignment network; by default X-Pool's optimization.

    AdamW (betas 0.9 and 0.999, eps 1e-6), linear warm-up, cosine to zero, best validation kept.

    Attributes:
        loss: similarities of the contrastive loss (Eq. 2): `xpool`, of texts and videos pooled under each text,
            the paper's; `index`, of texts and the mean of a video's frames, which an index can hold; or `both`,
            the mean of the two losses. With `index` no X-Pool head is trained or kept.
        select: scores by which the checkpoint is chosen: those of the `index`, or those of `xpool`, which no index
            can hold.
        pretraining: optimization of the adapter on the vectors of the untrained CLIP, before all is trained
            together (`Adapter.initialize`): the pre-training of `diffusion`, or the affine start of a sampler.
        frames: frames a clip, the middles of as many equal intervals.
        limit: seconds from the start of a video after which the rest of it does not count (31 on DiDeMo).
        epochs: passes over all (text, video) pairs.
        batch_size: pairs a step over all processes; each is contrasted with all others.
        clip_learning_rate: peak learning rate of CLIP.
        learning_rate: peak learning rate of the head and the network.
        weight_decay: weight decay of AdamW, on all parameters.
        warmup: share of all steps that warm up linearly.
        gradient_norm: gradients are clipped to this norm.
        dropout: dropout of the X-Pool head.
        flip: mirror clips at random; turn off where captions mention left and right.
        validation: share of the videos that is held out to choose the checkpoint.
        checkpoint_steps: steps between validations, each with a checkpoint; by default an epoch's. Beside these a
            checkpoint is saved every minute, or less often where that takes more than a twentieth of the time.
        gradient_checkpointing: recompute CLIP's activations in the backward pass: less memory, more time.
        bf16: compute in bfloat16 (autocast); weights and optimizer stay float32.
        workers: processes that decode, for each training process; no more than it has cores.
        text_cleaning: cleaning of texts before they are tokenized, `none` or `clip` (`load_encoder`).
        seed: seed of initial weights, order, crops, dropout, noise and the held-out videos.
    """

    loss: JointLoss = "xpool"
    select: JointSelection = "index"
    pretraining: TrainingConfig | None = None
    frames: int = Field(default=12, ge=1)
    limit: PositiveFloat | None = None
    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=32, ge=2)
    clip_learning_rate: float = Field(default=1e-6, ge=0)
    learning_rate: float = Field(default=3e-5, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    gradient_norm: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    flip: bool = True
    validation: float = Field(default=0.1, gt=0, lt=1)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    bf16: bool = False
    workers: int = Field(default=4, ge=0)
    text_cleaning: TextCleaning = "none"
    seed: int = Field(default=24, ge=0)

    @model_validator(mode="after")
    def _head_for_choice(self) -> JointRecipe:
        if self.loss == "index" and self.select == "xpool":
            raise ValueError("loss index trains no X-Pool head that select xpool could choose by")
        return self


JOINT_PRESETS = {
    "paper": JointRecipe(sampler=PAPER_SAMPLER, clip_learning_rate=1e-5, select="xpool"),
    "xpool": JointRecipe(sampler=PAPER_SAMPLER, clip_learning_rate=1e-6, select="xpool"),
    "deterministic": JointRecipe(sampler={"input": "raw"}),
}
"""Joint recipes by name. `paper` and `xpool`: Eq. 8 with its noise, the checkpoint chosen by X-Pool's scores;
CLIP's learning rate of the DITS paper, and of X-Pool's code, which the paper follows otherwise. `deterministic`:
X-Pool's rate, no noise, the checkpoint chosen by what an index finds."""
JointRecipe.presets = JOINT_PRESETS
