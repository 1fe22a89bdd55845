"""Fits that need no validation pairs: cross-validated adapters, and banks of the texts of the pairs."""

from __future__ import annotations

from functools import lru_cache

from dits_adapter.adapters import Adapter, GentleFit, adapter_entry, fit_query_bank
from dits_adapter.adapters.bank import draw
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.comparison import PLAIN
from dits_adapter.training.config import Recipe

__all__ = ["fit_gently", "is_gentle"]


_MOST_TEXTS = 20_000
"""Texts that a bank is drawn from; of more as many are read."""


def is_gentle(recipe: Recipe) -> bool:
    """Return True for a recipe that `fit_gently` takes.

    Raises:
        InputError: an unknown adapter, or a bank behind one that is not fitted out of fold.
    """
    entry = adapter_entry(recipe.adapter)
    gentle = entry.cross_validated is not None
    if recipe.bank != "none" and not (gentle or entry.trained) and recipe.adapter != PLAIN:
        raise InputError(
            f"a bank of the training texts cannot stand behind {recipe.adapter!r}, an adapter in closed form. "
            "Take a gentle preset, or make a bank of other queries: dits-adapter bank QUERIES --adapter FOLDER "
            "--out FOLDER."
        )
    if gentle and (recipe.options or recipe.sampler):
        raise InputError(f"adapter {recipe.adapter!r} takes no options; cross-validation chooses for it.")
    return gentle or (recipe.bank != "none" and not entry.trained)


def fit_gently(recipe: Recipe, pairs: Pairs) -> tuple[Adapter, dict[str, float]]:
    """Fit an adapter to all pairs.

    Returns:
        The adapter, a `QueryBankAdapter` where the recipe has a bank; and the choice of its cross-validation.
    """
    entry = adapter_entry(recipe.adapter)
    if entry.cross_validated is None:
        texts = pairs.matches.text
        return fit_query_bank(texts[draw(len(texts), _MOST_TEXTS, seed=0)]), {}
    fit = _cross_validated(recipe.adapter, pairs)
    if recipe.bank == "none":
        return fit.adapter, fit.choice()
    return fit_query_bank(pairs.text[fit.rows], inner=fit.adapter, adapted=fit.out_of_fold), fit.choice()


@lru_cache(maxsize=3)
def _cross_validated(name: str, pairs: Pairs) -> GentleFit:
    """Fit an adapter once for all recipes that differ in the bank behind it."""
    fit = adapter_entry(name).cross_validated
    assert fit is not None
    return fit(pairs.matches.text, pairs.matches.video, pairs.matches.groups, pairs.matches.judges)
