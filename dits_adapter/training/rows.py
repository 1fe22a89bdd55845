"""Rows of a comparison: the adapters to train, and their recipes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from dits_adapter._wording import validated
from dits_adapter.adapters import MLPConfig, adapter_entries, adapter_entry
from dits_adapter.errors import InputError
from dits_adapter.evaluation.comparison import CHANCE, PLAIN
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training.config import PRESETS, Recipe, TrainingConfig

__all__ = [
    "GENTLE",
    "STEPS",
    "Recipes",
    "all_rows",
    "best_mlp_recipe",
    "best_recipe",
    "equal_cost_depth",
    "few_pairs_rows",
    "reference",
    "rows_across",
    "schedule",
    "selected_rows",
    "standard_rows",
]

_BEST_MLP = "mlp-best"
"""Row of the residual MLP with the start and the optimization of the preset `best`."""

GENTLE = ("gentle-linear", "gentle-mlp", "gentle-dits")
"""Adapters for few pairs."""

STEPS = (1, 5, 10)
"""Truncated timesteps T' of the DITS rows."""

_SCHEDULE = 10
"""Timesteps T of the paper. A sampler of more steps has T = T' with β re-spanned, the only reading of Table 8."""

Recipes = Mapping[str, Recipe]
"""Recipes by the name of their row."""


def standard_rows(steps: Sequence[int] = STEPS, training: TrainingConfig | None = None) -> dict[str, Recipe]:
    """Return the recipe of every adapter to compare, by the name of its row.

    `dits-N` is DITS with T' = N, each trained as a sampler of its own. `mlp-N` is the residual MLP whose depth
    gives it the multiplications of `dits-N` (`equal_cost_depth`), for the shortest and for the longest sampler.
    `dits-best` is the preset `best`: DITS that starts from the contrastive linear map, which itself starts from
    the best closed form (`Adapter.initialize`). `mlp-best` is a residual MLP with the same start, optimization and
    number of multiplications (`best_mlp_recipe`): its distance to `dits-best` is the gain of the flow.

    Args:
        steps: values of T'. Up to 10 they run t = T' … 1 of the paper's schedule of T = 10; beyond, T = T'.
        training: the optimization, with `LEARNING_RATES` by default; `mlp-best` and `dits-best` have learning
            rates, moving average and patience of their own.

    Raises:
        InputError: no steps, less than one, or more than a sampler takes.
    """
    if not steps or min(steps) < 1:
        raise InputError(f"steps are {list(steps)}; expected numbers of truncated timesteps T' of at least 1.")
    validated(Recipe, {"sampler": schedule(max(steps))}).sampler_config(width=1)
    training = _default(training)
    compared = [entry for entry in adapter_entries() if entry.compared]
    rows = {entry.name: Recipe(adapter=entry.name) for entry in compared if entry.closed_form}
    rows |= {
        entry.name: Recipe(adapter=entry.name, training=training) for entry in compared if not entry.closed_form
    }
    for n in sorted({min(steps), max(steps)}):
        depth = equal_cost_depth(Recipe(sampler=schedule(n)).sampler_config(width=1))
        rows[f"mlp-{n}"] = Recipe(adapter="mlp", options={"depth": depth}, training=training)
    rows |= {f"dits-{n}": Recipe(sampler=schedule(n), training=training) for n in steps}
    return rows | {_BEST_MLP: best_mlp_recipe(training), "dits-best": best_recipe(training)}


def few_pairs_rows(training: TrainingConfig | None = None) -> dict[str, Recipe]:
    """Return the recipes of banks and of the adapters for few pairs, alone and with a bank.

    `query-bank` and `NAME-bank` are query banks (`QueryBankAdapter`), `score-bias` and `NAME-bias` score biases of
    the searched videos (`score_bias`); `both-sides` and `NAME-both` correct the queries and the videos, either by
    a part. The queries are the texts of the training pairs, each adapted by one that has not seen its video.

    Args:
        training: the optimization of `mlp-best`, as for `standard_rows`.
    """
    rows = _banks("query-bank", "score-bias", "both-sides", Recipe(adapter=PLAIN))
    for name in GENTLE:
        rows |= {name: Recipe(adapter=name)} | _banks_behind(name, Recipe(adapter=name))
    return rows | _banks_behind(_BEST_MLP, best_mlp_recipe(_default(training)))


def _banks_behind(name: str, recipe: Recipe) -> dict[str, Recipe]:
    return _banks(f"{name}-bank", f"{name}-bias", f"{name}-both", recipe)


def _banks(queries: str, scores: str, both: str, recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe with each use of a bank, by the names of the rows."""
    uses = {queries: "queries", scores: "scores", both: "both"}
    return {name: recipe.model_copy(update={"bank": use}) for name, use in uses.items()}


def _default(training: TrainingConfig | None) -> TrainingConfig:
    return TrainingConfig(learning_rate=LEARNING_RATES) if training is None else training


def all_rows(steps: Sequence[int] = STEPS, training: TrainingConfig | None = None) -> dict[str, Recipe]:
    """Return the rows of `standard_rows` and of `few_pairs_rows`; arguments as for the first."""
    return standard_rows(steps, training) | few_pairs_rows(training)


def selected_rows(
    names: Sequence[str], steps: Sequence[int] = STEPS, training: TrainingConfig | None = None
) -> dict[str, Recipe]:
    """Return plain CLIP and the rows of the names, which may be those of any registered adapters.

    Args:
        names: rows of `all_rows`, or adapters, which are trained as their recipes have
            them by default.
        steps, training: as for `standard_rows`.

    Raises:
        InputError: neither a row nor a registered adapter.
    """
    training = _default(training)
    rows = all_rows(steps, training)
    known = list(dict.fromkeys([*rows, *(entry.name for entry in adapter_entries())]))
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"there is no row {unknown[0]!r}; {hint}Rows are {', '.join(known)}.")
    others = {name: Recipe(adapter=name, training=training) for name in names if name not in rows}
    return {name: (rows | others)[name] for name in dict.fromkeys([PLAIN, *names])}


def reference(space: EmbeddingSpace) -> str:
    """Return the name of the row that others are compared with: plain CLIP, or chance where there is none."""
    return PLAIN if space.shared else CHANCE


def rows_across(rows: Recipes) -> tuple[dict[str, Recipe], list[str]]:
    """Return the rows for texts of another space than the videos, and the names of those that cannot lead there.

    Chance stands in the place of plain CLIP, and `reduced-rank` in that of all closed forms; networks start there.
    """
    kept = {CHANCE: Recipe(adapter=CHANCE), "reduced-rank": Recipe(adapter="reduced-rank")}
    left_out = []
    for name, recipe in rows.items():
        fields = adapter_entry(recipe.adapter).adapter.Config.model_fields
        start = {**recipe.options, **recipe.sampler}.get("start")
        affine = recipe.adapter == "contrastive-linear" or ("start" in fields and start == "affine")
        if affine and recipe.bank == "none":
            kept[name] = recipe
        elif name not in kept:
            left_out.append(name)
    return kept, left_out


def best_recipe(training: TrainingConfig) -> Recipe:
    """Return the preset `best` with another optimization, but its own learning rates, average and patience."""
    best = PRESETS["best"]
    own = best.training.model_dump(include={"learning_rate", "ema", "patience"})
    return best.model_copy(update={"training": training.model_copy(update=own)})


def best_mlp_recipe(training: TrainingConfig) -> Recipe:
    """Return `best_recipe` with a residual MLP in the place of the flow: the same start, optimization and cost."""
    best = best_recipe(training)
    flow = best.sampler_config(width=1)
    options = {"depth": equal_cost_depth(flow), "start": flow.start}
    return best.model_copy(update={"adapter": "mlp", "sampler": {}, "options": options})


def schedule(steps: int) -> dict[str, int]:
    """Return the fields of `SamplerConfig` for T' steps: T = 10, or T = T' beyond that (Table 8)."""
    return {"timesteps": max(_SCHEDULE, steps), "steps": steps}


def equal_cost_depth(sampler: SamplerConfig) -> int:
    """Return the depth at which an `MLPAdapter` multiplies as often as the folded sampler for one query.

    A layer of the MLP adapter has 2 r matrices of d × d, r being its MLP ratio. An affine start, which both may
    have, is left out of `SamplerConfig.matrices`.

    >>> equal_cost_depth(SamplerConfig(width=512, steps=10))  # 371 / 8 = 46.4
    46
    """
    flow = sampler.model_copy(update={"start": "text"})
    return max(1, round(flow.matrices / (2 * MLPConfig(width=flow.width).mlp_ratio)))
