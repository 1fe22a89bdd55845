"""Comparison of every adapter on cached pairs, from the splits to the files."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path

import torch

from dits_adapter._files import require_writable
from dits_adapter._wording import validated
from dits_adapter.data._named import PairsSource, named_pairs
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.evaluation._figures import learning_curve_plot
from dits_adapter.evaluation.comparison import Comparison
from dits_adapter.training._estimate import plan
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training._learning_curve import curve_rows, with_curve
from dits_adapter.training._parts import warn_if_few
from dits_adapter.training.compare import compare, compare_folds, fitting_rows, fold_splits
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.rows import Recipes, all_rows, selected_rows

__all__ = ["compare_adapters"]

_EPOCHS, _LEAST_EPOCHS = 30, 3
_MOST_STEPS = 3_000
_PATIENCE = 8
"""Epochs without a better validation after which a training stops."""


def compare_adapters(
    pairs: PairsSource,
    out: str | PathLike[str] | None = None,
    *,
    test_fraction: float = 0.2,
    folds: int | None = None,
    rows: Sequence[str] | None = None,
    steps: Sequence[int] = (1, 5, 10),
    epochs: int | None = None,
    budget: float | None = None,
    curve: str | PathLike[str] | None = None,
    seed: int = 24,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Train every adapter on one part of the pairs, choose on a second, compare on a third, recommend one.

    `compare` takes splits and recipes of your own.

    Args:
        pairs: cache of pairs, or the pairs.
        out: folder that keeps the adapters, `comparison.json` and `comparison.md`; the same call reuses finished
            adapters. None keeps nothing.
        test_fraction: share of the videos that is searched.
        folds: cross-validate instead: each of so many parts of the videos is searched once; for few pairs.
        rows: names of rows of the table, or of registered adapters that have none by default; None for all rows.
        steps: truncated timesteps T' of the DITS rows.
        epochs: epochs of training at most; None for 30, or as many as 3,000 steps hold, and at least 3.
        budget: seconds; rows that fit are compared, cheap ones first, and the others are named
            (`Comparison.left_out`). The curve takes its time beyond.
        curve: file for R@1 against the number of pairs, as JSON, with a .png beside it where matplotlib is
            installed; also `Comparison.curve`.
        seed: seed of splits and training.
        device: device of the training; queries are timed on the CPU.
        progress: show progress bars, and the time that all rows take, on stderr.

    Raises:
        DITSError: pairs that cannot be read, or `out` holds adapters of other pairs or recipes.
        InputError: an unknown row, an option outside its range, or too few videos.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise InputError(f"budget is {budget}; it is a number of seconds above 0.")
    folder = None if out is None else Path(out)
    if folder is not None:
        require_writable(folder)
    fields = {"seed": seed, "learning_rate": LEARNING_RATES, "patience": _PATIENCE}
    given = {} if epochs is None else {"epochs": epochs}
    training = validated(TrainingConfig, fields | given)
    everything, _ = named_pairs(pairs)
    if not given:
        training = training.model_copy(update={"epochs": _epochs(len(everything) // training.batch_size)})
    named = selected_rows(rows, steps, training) if rows else all_rows(steps, training)
    chosen = fitting_rows(named, everything.space)
    splits = _splits(everything, folds, test_fraction, training)
    if curve is not None:
        _require_curve(Path(curve), everything, chosen, splits)
    planned = plan(chosen, splits, budget=budget, out=folder, device=device)
    if progress:
        print(planned, file=sys.stderr, flush=True)
    chosen = planned.rows
    if curve is not None:
        curve_rows(chosen, splits)  # of what the budget has left
    if folds is None:
        found = compare(*splits[0], rows=chosen, out=out, limits=planned.limits, device=device, progress=progress)
    else:
        found = compare_folds(
            splits, rows=chosen, out=out, limits=planned.limits, device=device, progress=progress
        )
    found = replace(found, left_out=planned.left_out)
    if curve is not None:
        found = with_curve(found, splits, rows=chosen, seed=seed, device=device, progress=progress)
        _write_curve(found, Path(curve))
    if folder is not None:
        (folder / "comparison.json").write_text(found.to_json() + "\n", "utf-8")
        (folder / "comparison.md").write_text(found.markdown() + "\n", "utf-8")
    return found


def _splits(
    pairs: Pairs, folds: int | None, test_fraction: float, training: TrainingConfig
) -> list[tuple[Pairs, Pairs, Pairs]]:
    """Return training, validation and test pairs, of each fold."""
    if folds is not None:
        return fold_splits(pairs, folds, training.validation, training.seed)
    rest, test = pairs.split(test_fraction, training.seed)
    warn_if_few(test, "with --folds 5 all videos are searched.")
    return [(*rest.split(training.validation, training.seed), test)]


def _epochs(steps: int) -> int:
    """Return the epochs of so many steps where none are given: of many pairs fewer passes do."""
    return min(_EPOCHS, max(_LEAST_EPOCHS, _MOST_STEPS // max(1, steps)))


def _require_curve(path: Path, pairs: Pairs, rows: Recipes, splits: Sequence[tuple[Pairs, Pairs, Pairs]]) -> None:
    """Refuse a learning curve that could not be drawn or written, before the work."""
    pairs.space.require_shared()
    curve_rows(rows, splits)
    if not path.absolute().parent.is_dir():
        raise InputError(f"curve {path}: there is no folder {path.parent}; make it first.")


def _write_curve(comparison: Comparison, path: Path) -> None:
    """Write the learning curve as JSON, and as a picture beside it where matplotlib is installed."""
    assert comparison.curve is not None
    curve = {**asdict(comparison.curve), "more_would_help": comparison.curve.more_would_help}
    path.write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
    try:
        learning_curve_plot(comparison.curve, path.with_suffix(".png"), caption=comparison.space)
    except MissingExtraError as error:
        warnings.warn(f"{path}: without a picture ({error})", stacklevel=2)
