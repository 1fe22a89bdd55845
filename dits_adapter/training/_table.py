"""Measurement of the rows of a comparison, and the table that the ranks of all folds make together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter, QueryBankAdapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.comparison import Comparison, Retrieval, Row, recommend
from dits_adapter.evaluation.metrics import (
    DotProducts,
    RetrievalMetrics,
    Scores,
    paired_bootstrap,
    ranks,
    video_to_text_ranks,
)
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, BiasedScores, bias_sharpness, score_bias
from dits_adapter.stores.bias import BESIDE_BANK
from dits_adapter.training._notes import sources_of, split_notes
from dits_adapter.training.config import Recipe
from dits_adapter.training.rows import Recipes, reference
from dits_adapter.vectors import unit

__all__ = ["measure", "row_ranks", "tabulate_folds"]

_TIMING_ROUNDS = 100
"""Timed queries of each adapter."""


@dataclass(frozen=True, eq=False)
class _Measured:
    """Row of one fold.

    Attributes:
        adapter: in the form for inference.
        forward: rank of each test text's video.
        backward: rank of each test video's best text.
        validation: rank of each validation text's video.
        microseconds: time of one query; None for an adapter that adapts no queries.
    """

    adapter: Adapter
    forward: NDArray[np.floating]
    backward: NDArray[np.floating]
    validation: NDArray[np.floating]
    microseconds: float | None


def measure(
    adapters: Mapping[str, Adapter], validation: Pairs, test: Pairs, *, rows: Recipes, progress: bool
) -> dict[str, _Measured]:
    """Evaluate the adapters of one fold and time them side by side, plain CLIP first."""
    first = reference(test.space)
    if first not in adapters:
        raise InputError(f"a comparison needs the row {first!r}; there are {', '.join(adapters)}.")
    ready = {name: adapter.for_inference() for name, adapter in adapters.items()}
    microseconds = _time({name: a for name, a in ready.items() if not a.needs_video}, test.text)
    names = sorted(ready, key=lambda name: name != first)
    measured = {}
    for name in progress_bar(names, desc="evaluating", unit="adapter", progress=progress):
        recipe = rows.get(name)
        scores = _row_scores(recipe, ready[name], test)
        measured[name] = _Measured(
            ready[name],
            ranks(scores, test.labels),
            video_to_text_ranks(scores, test.labels),
            row_ranks(recipe, ready[name], validation),
            microseconds.get(name),
        )
    return measured


def _row_scores(recipe: Recipe | None, adapter: Adapter, pairs: Pairs) -> Scores:
    """Return the scores (texts, videos) of a row's adapter in the form for inference; None: it was made elsewhere.

    With the bank `scores` the adapter is a query bank, whose queries give the bias of the videos instead; with
    `both` they do so too, and either correction takes a part.
    """
    if recipe is None or recipe.bank not in ("scores", "both"):
        return cosine_scores(adapter, pairs.text, pairs.video)
    assert isinstance(adapter, QueryBankAdapter)
    bank, video = adapter.bank.numpy(), unit(pairs.video)
    bias = score_bias(video, bank, sharpness=bias_sharpness(video, bank))
    if recipe.bank == "both":
        scores = cosine_scores(adapter.beside_bias(), pairs.text, video)
        return BiasedScores(scores, bias, BESIDE_BANK * BIAS_WEIGHT)
    inner = adapter.inner
    cosines = DotProducts(unit(pairs.text), video) if inner is None else cosine_scores(inner, pairs.text, video)
    return BiasedScores(cosines, bias)


def row_ranks(recipe: Recipe | None, adapter: Adapter, pairs: Pairs) -> NDArray[np.floating]:
    """Return the rank of each text's video, (n,), by the scores of a row; arguments as for `_row_scores`."""
    return ranks(_row_scores(recipe, adapter, pairs), pairs.labels)


def tabulate_folds(
    folds: Sequence[Mapping[str, _Measured]], splits: Sequence[tuple[Pairs, Pairs, Pairs]], rows: Recipes
) -> Comparison:
    """Put the ranks of all folds together, and recommend a row."""
    offsets = np.cumsum([0, *(len(test.video) for _, _, test in splits)])
    labels = np.concatenate([test.labels + offset for (_, _, test), offset in zip(splits, offsets, strict=False)])
    plain = np.concatenate([fold[reference(splits[0][2].space)].forward for fold in folds])
    finished: list[Row] = []
    for name, first in folds[0].items():
        forward = np.concatenate([fold[name].forward for fold in folds])
        times = [fold[name].microseconds for fold in folds]
        finished.append(
            Row(
                name=name,
                family=first.adapter.family,
                text_to_video=Retrieval.of(forward, labels),
                video_to_text=Retrieval.of(np.concatenate([fold[name].backward for fold in folds])),
                over_plain=paired_bootstrap(plain, forward, labels),
                validation=RetrievalMetrics.from_ranks(np.concatenate([fold[name].validation for fold in folds])),
                weights=_weights(first.adapter),
                microseconds=None if None in times else statistics.median(filter(None, times)),
                uses_queries=isinstance(first.adapter, QueryBankAdapter),
            )
        )
    train, validation, test = splits[0]
    named = {"train": train, "validation": validation, "test": test}
    return Comparison(
        rows=tuple(finished),
        recommendation=recommend(finished, labels),
        labels=tuple(labels.tolist()),
        sizes={name: (len(split.text), len(split.video)) for name, split in named.items()},
        space=str(test.space),
        recipes={name: recipe.model_dump(mode="json") for name, recipe in rows.items()},
        environment=environment(),
        folds=len(splits),
        sources=sources_of(splits[0]),
        notes=split_notes(splits),
    )


def _weights(adapter: Adapter) -> int:
    return 0 if adapter.is_plain else sum(tensor.numel() for tensor in adapter.state_dict().values())


def _time(adapters: Mapping[str, Adapter], texts: NDArray[np.float32]) -> dict[str, float]:
    """Return the median microseconds that adapting one query takes, all adapters in turn, round by round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken: dict[str, list[float]] = {name: [] for name in adapters}
        for round_ in range(_TIMING_ROUNDS + 1):
            query = texts[round_ % len(texts)][None]
            for name, adapter in adapters.items():
                start = time.perf_counter()
                adapter.adapt(query)
                taken[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: 1e6 * statistics.median(times[1:]) for name, times in taken.items()}  # the first warms up
