"""Commands that make what a comparison recommends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.training.config import Recipe

__all__ = ["commands_for"]

_ADAPTER, _BANK = "my-adapter", "my-bank"
"""Folders that the commands write."""


def commands_for(recipe: Recipe, cache: Path, space: EmbeddingSpace) -> list[str]:
    """Return the commands, one a line, that make the adapter of a row from the pairs and put its bank to use.

    Args:
        recipe: recipe of the row; plain CLIP and chance need no command.
        cache: the pairs.
        space: their space.
    """
    from dits_adapter.evaluation.comparison import CHANCE, PLAIN

    if recipe.adapter == CHANCE:
        return []
    commands = []
    adapter = shlex.quote(space.text.encoder)
    if recipe.adapter != PLAIN:
        adapter = _ADAPTER
        commands.append(f"dits-adapter train {shlex.quote(str(cache))} --out {adapter}" + _options(recipe))
    if recipe.bank != "none":  # of other queries: the texts of the pairs push their own videos down
        commands.append(f"dits-adapter bank QUERIES --adapter {adapter} --out {_BANK}")
    if recipe.bank in ("scores", "both"):
        commands.append(f"dits-adapter bias {_BANK} --store STORE --collection NAME")
    if commands:
        searching = _BANK if recipe.bank in ("queries", "both") else adapter
        commands.append(f"dits-adapter search TEXT --store STORE --collection NAME --adapter {searching}")
    return commands


def _options(recipe: Recipe) -> str:
    """Return the preset that is nearest to a recipe, and the settings that differ."""
    from dits_adapter.training.config import PRESETS

    differences = {name: _differences(recipe, preset) for name, preset in PRESETS.items()}
    possible = {name: settings for name, settings in differences.items() if settings is not None}
    name = min(possible, key=lambda name: len(possible[name]))
    return f" --preset {name}" + "".join(f" --set {shlex.quote(setting)}" for setting in possible[name])


def _differences(recipe: Recipe, preset: Recipe) -> list[str] | None:
    """Return the settings that make a recipe of a preset, the bank aside; None where none can."""
    own, base = ({**each.model_dump(mode="json"), "bank": "none"} for each in (recipe, preset))
    settings = []
    for field, value in own.items():
        usual = base[field]
        if not isinstance(value, dict):
            settings += [] if value == usual else [f"{field}={value}"]
        elif usual.keys() - value.keys():
            return None
        else:
            changed = [key for key in value if key not in usual or value[key] != usual[key]]
            settings += [f"{field}.{key}={json.dumps(value[key])}" for key in changed]
    return settings
