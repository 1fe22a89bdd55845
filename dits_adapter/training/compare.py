"""Comparison of adapters: trained on one split, tabulated side by side, one of them recommended."""

from __future__ import annotations

import hashlib
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dits_adapter.adapters import Adapter
from dits_adapter.artifact._find import is_artifact
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.comparison import PLAIN, Comparison, Retrieval, Row, recommend
from dits_adapter.evaluation.metrics import RetrievalMetrics, paired_bootstrap, ranks, video_to_text_ranks
from dits_adapter.training._loop import evaluate
from dits_adapter.training._state import best_epoch
from dits_adapter.training.rows import Recipes, standard_rows
from dits_adapter.training.run import fit

__all__ = ["check_splits", "compare", "fit_all", "tabulate"]

_TIMING_ROUNDS = 100
"""Timed queries of each adapter."""


def compare(
    pairs: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    rows: Recipes | None = None,
    out: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Train every adapter on the same pairs, choose on the validation pairs, report on the test pairs.

    Args:
        pairs: training pairs.
        validation: pairs of other videos, for all choices: epochs, penalties, recipes, rows.
        test: pairs of yet other videos, for the metrics.
        rows: recipes by the name of their row; by default `standard_rows()`.
        out: folder that keeps each finished adapter as an artifact, from which the same call resumes.
        device: device of the training; queries are timed on the CPU.
        progress: show progress bars.

    Raises:
        SpaceMismatchError: the pairs are of different embedding spaces.
        DITSError: `out` holds adapters made from other pairs or recipes.
    """
    check_splits(pairs, validation, test)
    rows = standard_rows() if rows is None else rows
    adapters = fit_all(rows, pairs, validation, out=out, device=device, progress=progress)
    return tabulate(adapters, pairs, validation, test, rows=rows, progress=progress)


def check_splits(pairs: Pairs, validation: Pairs, test: Pairs) -> None:
    """Refuse splits of different embedding spaces, and warn of test videos that are not held out.

    Raises:
        SpaceMismatchError: two splits differ; the message names both.
    """
    for split, name in ((validation, "the validation pairs"), (test, "the test pairs")):
        pairs.space.require(split.space, mine="the training pairs", theirs=name)
    shared = _distinct(test.video) & (_distinct(pairs.video) | _distinct(validation.video))
    if shared:
        warnings.warn(
            f"{len(shared)} of {len(test.video)} test videos have exactly the vector of a training or validation "
            "video: the figures flatter every trained adapter.",
            stacklevel=3,
        )


def fit_all(
    rows: Recipes,
    pairs: Pairs,
    validation: Pairs,
    *,
    out: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> dict[str, Adapter]:
    """Fit the adapter of every row, or load one that an interrupted run has kept; arguments as for `compare`.

    Raises:
        DITSError: `out` holds an adapter of that name, made from other pairs or recipes.
    """
    data = _digest(pairs, validation)
    adapters = {}
    bar = tqdm(rows.items(), desc="comparing", unit="adapter", disable=not progress)
    for name, recipe in bar:
        bar.set_postfix_str(name)
        made_from = {"data": data, "recipe": recipe.model_dump(mode="json")}
        folder = None if out is None else Path(out) / name
        if folder is not None and is_artifact(folder):
            artifact = Artifact.load(folder)
            adapter = artifact.adapter
            if artifact.training != made_from:
                raise DITSError(
                    f"{folder}: was made from other pairs, or with another recipe, than this comparison has. "
                    "Choose another folder, or delete this one."
                )
        else:
            adapter, history = fit(recipe, pairs, validation, device=device, progress=progress)
            if folder is not None:
                validation_metrics = (
                    best_epoch(history).validation
                    if history
                    else RetrievalMetrics.from_ranks(evaluate(adapter, validation))
                )
                metrics = {"validation": asdict(validation_metrics)}
                Artifact(adapter, pairs.space, training=made_from, metrics=metrics).save(folder)
        adapters[name] = adapter
    return adapters


def tabulate(
    adapters: Mapping[str, Adapter],
    pairs: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    rows: Recipes,
    progress: bool = True,
) -> Comparison:
    """Evaluate finished adapters, time them side by side, and recommend one.

    Args:
        adapters: fitted adapters by the name of their row, `identity` among them.
        pairs: training pairs of the adapters.
        validation: pairs that choose between the rows.
        test: pairs that the metrics come from.
        rows: recipe of each adapter, for the record.
        progress: show a progress bar.

    Raises:
        InputError: plain CLIP is not among the adapters.
    """
    if PLAIN not in adapters:
        raise InputError(f"a comparison needs the row {PLAIN!r}, plain CLIP; there are {', '.join(adapters)}.")
    ready = {name: adapter.for_inference() for name, adapter in adapters.items()}
    microseconds = _time({name: a for name, a in ready.items() if not a.needs_video}, test.text)
    names = sorted(ready, key=lambda name: name != PLAIN)
    finished: list[Row] = []
    for name in tqdm(names, desc="evaluating", unit="adapter", disable=not progress):
        adapter = ready[name]
        scores = cosine_scores(adapter, test.text, test.video)
        forward = Retrieval.of(ranks(scores, test.labels), test.labels)
        plain = finished[0].text_to_video.ranks if finished else forward.ranks
        finished.append(
            Row(
                name=name,
                family=adapter.family,
                text_to_video=forward,
                video_to_text=Retrieval.of(video_to_text_ranks(scores, test.labels)),
                over_plain=paired_bootstrap(plain, forward.ranks, test.labels),
                validation=RetrievalMetrics.from_ranks(evaluate(adapter, validation)),
                weights=0 if adapter.is_plain else sum(t.numel() for t in adapter.state_dict().values()),
                microseconds=microseconds.get(name),
            )
        )
    splits = {"train": pairs, "validation": validation, "test": test}
    return Comparison(
        rows=tuple(finished),
        recommendation=recommend(finished, test.labels),
        labels=tuple(test.labels.tolist()),
        sizes={name: (len(split.text), len(split.video)) for name, split in splits.items()},
        space=str(test.space),
        recipes={name: recipe.model_dump(mode="json") for name, recipe in rows.items()},
        environment=environment(),
    )


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


def _distinct(vectors: NDArray[np.float32]) -> set[bytes]:
    return {row.tobytes() for row in vectors}


def _digest(pairs: Pairs, validation: Pairs) -> str:
    """Return a digest of the pairs and of the package's version, which determine the adapters."""
    digest = hashlib.sha256(version("dits-adapter").encode())
    for split in (pairs, validation):
        for array in (split.text, split.video, split.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
