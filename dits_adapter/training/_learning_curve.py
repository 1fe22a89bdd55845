"""Learning curve of a comparison: the same rows, made of fewer pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dits_adapter.adapters import LEAST_VIDEOS
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation._learning_curve import CurvePoint, LearningCurve
from dits_adapter.evaluation.comparison import PLAIN, Comparison, recommend
from dits_adapter.evaluation.metrics import paired_bootstrap
from dits_adapter.training._table import measure, tabulate_folds
from dits_adapter.training.compare import fit_all
from dits_adapter.training.rows import GENTLE, Recipes

__all__ = ["curve_rows", "with_curve"]

_CURVE_ROWS = (PLAIN, "query-bank", "score-bias", *GENTLE, *(f"{name}-bias" for name in GENTLE))
"""Rows of a learning curve, beside the recommended one."""


def with_curve(
    comparison: Comparison,
    splits: Sequence[tuple[Pairs, Pairs, Pairs]],
    *,
    rows: Recipes,
    seed: int = 24,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Add the learning curve of plain CLIP, the query bank and the adapters for few pairs to a comparison.

    Args:
        comparison: of the same splits and rows, which has the figures with all pairs.
        splits: training, validation and test pairs, one for each fold. A quarter, where that is enough, and a half
            of the videos of the first two are taken.
        rows: recipes of the comparison; the curve is that of `_CURVE_ROWS` among them, and of the recommended one.
        seed: decides which videos are taken.
        device, progress: as for `compare`.

    Raises:
        InputError: no row but plain CLIP is left for a curve, or half of the training videos are too few.
    """
    chosen = {**curve_rows(rows, splits), comparison.recommendation.name: rows[comparison.recommendation.name]}
    least = min(len(train.video) for train, _, _ in splits)
    fewer = []
    for fraction in (0.25, 0.5) if least >= 4 * LEAST_VIDEOS else (0.5,):
        parts = [(_part(train, fraction, seed), _part(held, fraction, seed), test) for train, held, test in splits]
        measured = []
        for train, held, test in parts:
            adapters = fit_all(chosen, train, held, device=device, progress=progress)
            measured.append(measure(adapters, held, test, rows=chosen, progress=False))
        fewer.append((parts, tabulate_folds(measured, parts, chosen)))
    points = [
        CurvePoint(
            pairs=len(parts[0][0]) + len(parts[0][1]),
            videos=len(parts[0][0].video) + len(parts[0][1].video),
            r1={name: table[name].text_to_video.metrics.r1 for name in chosen},
            over_plain={name: table[name].over_plain["r1"] for name in chosen},
            recommendation=recommend([table[name] for name in chosen], np.array(table.labels)).name,
        )
        for parts, table in [*fewer, (list(splits), comparison)]
    ]
    name = comparison.recommendation.name
    if name == PLAIN:
        name = max(set(chosen) - {PLAIN}, key=lambda name: comparison[name].validation.mrr)
    half, whole = (table[name].text_to_video.ranks for table in (fewer[-1][1], comparison))
    doubling = paired_bootstrap(half, whole, comparison.labels)["mrr"]
    return replace(comparison, curve=LearningCurve(tuple(points), name, doubling))


def curve_rows(rows: Recipes, splits: Sequence[tuple[Pairs, Pairs, Pairs]]) -> Recipes:
    """Return the rows that a curve is drawn of; arguments and errors as for `with_curve`."""
    chosen = {name: recipe for name, recipe in rows.items() if name in _CURVE_ROWS}
    if len(chosen) < 2:
        raise InputError(f"a curve is drawn of the rows {', '.join(_CURVE_ROWS)}; compare {PLAIN} and one more.")
    least = min(len(train.video) for train, _, _ in splits)
    if least < 2 * LEAST_VIDEOS:
        raise InputError(f"half of {least} training videos is too few for a curve; it takes {2 * LEAST_VIDEOS}.")
    return chosen


def _part(pairs: Pairs, fraction: float, seed: int) -> Pairs:
    """Return the pairs of a part of the videos; larger parts hold the smaller ones."""
    count = max(1, round(fraction * len(pairs.video)))
    return pairs.of_videos(np.sort(np.random.default_rng(seed).permutation(len(pairs.video))[:count]))
