"""Comparison of adapters: trained on one split, tabulated side by side, one of them recommended."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter._progress import progress_bar
from dits_adapter._wording import counted
from dits_adapter.adapters import Adapter, Rows
from dits_adapter.artifact._find import is_artifact
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data._splits import MOST_HELD_OUT
from dits_adapter.data.pairs import LEAST_JUDGES, Pairs
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation.comparison import Comparison
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training._batches import blocks
from dits_adapter.training._state import best_epoch
from dits_adapter.training._table import measure, row_ranks, tabulate_folds
from dits_adapter.training._time_limit import time_limit
from dits_adapter.training.rows import Recipes, all_rows, rows_across
from dits_adapter.training.run import fit

__all__ = [
    "check_splits",
    "compare",
    "compare_folds",
    "fit_all",
    "fitting_rows",
    "fold_splits",
    "tabulate",
]


def compare(
    pairs: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    rows: Recipes | None = None,
    out: str | PathLike[str] | None = None,
    limits: Mapping[str, float] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Train every adapter on the same pairs, choose on the validation pairs, report on the test pairs.

    Args:
        pairs: training pairs.
        validation: pairs of other videos, for all choices: epochs, penalties, recipes, rows.
        test: pairs of yet other videos, for the metrics.
        rows: recipes by the name of their row; by default `all_rows()`.
        out: folder that keeps each finished adapter as an artifact, from which the same call resumes.
        limits: seconds that the fit of a row may take, by its name: its training ends with the epoch in which they
            run out, with a warning, and `out` does not keep it.
        device: device of the training; queries are timed on the CPU.
        progress: show progress bars on a terminal.

    Raises:
        SpaceMismatchError: the pairs are of different embedding spaces.
        DITSError: `out` holds adapters made from other pairs or recipes.
    """
    check_splits(pairs, validation, test)
    rows = fitting_rows(all_rows() if rows is None else rows, pairs.space)
    _warn_of_known_texts(rows, pairs, test)
    adapters = fit_all(rows, pairs, validation, out=out, limits=limits, device=device, progress=progress)
    return tabulate(adapters, pairs, validation, test, rows=rows, progress=progress)


def compare_folds(
    splits: Sequence[tuple[Pairs, Pairs, Pairs]],
    *,
    rows: Recipes | None = None,
    out: str | PathLike[str] | None = None,
    limits: Mapping[str, float] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Compare adapters by cross-validation: each fold of the videos is searched once by what the others give.

    The ranks of all folds together make the metrics, so that every text of the pairs counts. Each text searches
    the videos of its own fold alone.

    Args:
        splits: of `fold_splits`.
        rows, out, limits, device, progress: as for `compare`; `out` holds a folder for each fold.

    Raises:
        DITSError: `out` holds adapters made from other pairs or recipes.
    """
    rows = fitting_rows(all_rows() if rows is None else rows, splits[0][0].space)
    measured = []
    for number, (train, validation, test) in enumerate(splits):
        check_splits(train, validation, test)
        _warn_of_known_texts(rows, train, test)
        folder = None if out is None else Path(out) / f"fold-{number}"
        adapters = fit_all(rows, train, validation, out=folder, limits=limits, device=device, progress=progress)
        measured.append(measure(adapters, validation, test, rows=rows, progress=progress))
    return tabulate_folds(measured, splits, rows)


def fold_splits(
    pairs: Pairs, folds: int, validation: float, seed: int, most: int = MOST_HELD_OUT
) -> list[tuple[Pairs, Pairs, Pairs]]:
    """Part the videos into folds, each of which is the test once: training, validation and test pairs.

    Videos that belong together (`Pairs.groups`) are in one fold, and texts of people judge alone where there are
    enough of them (`Pairs.judging`).

    Args:
        pairs: all pairs.
        folds: number of folds, at least 2, of at least 10 videos each.
        validation: share of the videos of the other folds that is held out for all choices.
        seed: seed of folds and splits.
        most: videos of a fold, and of the validation pairs, at most; the others are left out.

    Raises:
        InputError: folds too few or too many for the videos, or for the groups of those that belong together.
    """
    count, groups = len(pairs.video), pairs.groups.whole
    if not 2 <= folds <= count // 10:
        raise InputError(f"{folds} folds of {count} videos: it takes 2 folds or more, of 10 videos or more each.")
    if len(pairs.groups) < 2 * folds:
        raise InputError(
            f"{folds} folds of {count} videos in {len(pairs.groups)} groups that belong together, as the parts of "
            "one file do: it takes 2 groups or more a fold. Take fewer folds, or add pairs of other files."
        )
    order = np.random.default_rng(seed).permutation(len(pairs.groups))
    judged = np.unique(pairs.labels[pairs.judges])
    by_people = pairs.marks is not None and len(judged) >= LEAST_JUDGES
    if by_people:  # so that each fold has as many of them
        order = order[np.argsort(~np.isin(order, groups[judged]), kind="stable")]
    part_of = np.empty(len(order), np.int64)
    part_of[order] = np.arange(len(order)) % folds
    splits = []
    for number in range(folds):
        held = part_of[groups] == number
        test = pairs.of_videos(np.flatnonzero(held)).judging(1 if by_people else count).at_most(most, seed)
        splits.append((*pairs.of_videos(np.flatnonzero(~held)).split(validation, seed, most), test))
    return splits


def check_splits(pairs: Pairs, validation: Pairs, test: Pairs) -> None:
    """Refuse splits of different embedding spaces, and warn of test videos that are not held out.

    Raises:
        SpaceMismatchError: two splits differ; the message names both.
    """
    for split, name in ((validation, "the validation pairs"), (test, "the test pairs")):
        pairs.space.require(split.space, mine="the training pairs", theirs=name)
    searched = test.matches.video
    shared = _shared(searched, pairs.matches.video) | _shared(searched, validation.matches.video)
    if shared:
        warnings.warn(
            f"of {len(test.video)} test videos {counted(len(shared), 'has', 'have')} exactly the vector of a "
            "training or validation video: the figures flatter every trained adapter.",
            stacklevel=3,
        )


def fitting_rows(rows: Recipes, space: EmbeddingSpace) -> Recipes:
    """Return the rows for pairs of a space; where texts lie in another one, those that lead across."""
    if space.shared:
        return rows
    kept, left_out = rows_across(rows)
    if left_out:
        warnings.warn(
            f"texts of {space.text.encoder} and videos of {space.video.encoder} lie in two spaces: "
            f"the rows {', '.join(left_out)}, which stay near the text, are left out.",
            stacklevel=3,
        )
    return kept


def _warn_of_known_texts(rows: Recipes, pairs: Pairs, test: Pairs) -> None:
    """Warn where a bank of the training texts holds queries of the test, or texts of its videos."""
    banks = [name for name, recipe in rows.items() if recipe.bank != "none"]
    if not banks:
        return
    videos = _shared(test.matches.video, pairs.matches.video)
    texts = _shared(test.matches.text, pairs.matches.text)
    if videos or texts:
        warnings.warn(
            f"leak: the bank of {', '.join(banks)} holds texts of {counted(len(videos), 'test video')}, and "
            f"{counted(len(texts), 'test query', 'test queries')} word for word. "
            "A bank pushes down the videos that its texts describe, here others than those "
            "that are asked for: do not believe these rows.",
            stacklevel=3,
        )


def fit_all(
    rows: Recipes,
    pairs: Pairs,
    validation: Pairs,
    *,
    out: str | PathLike[str] | None = None,
    limits: Mapping[str, float] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> dict[str, Adapter]:
    """Fit the adapter of every row, or load one that an interrupted run has kept; arguments as for `compare`.

    Raises:
        DITSError: `out` holds an adapter of that name, made from other pairs or recipes.
    """
    data = _digest(pairs, validation)
    adapters = {}
    bar = progress_bar(rows.items(), desc="comparing", unit="adapter", progress=progress)
    for name, recipe in bar:
        bar.set_postfix_str(name)
        made_from = {"data": data, "recipe": recipe.model_dump(mode="json")}
        folder = None if out is None else Path(out) / name
        if folder is not None and is_artifact(folder):
            adapters[name] = _kept(folder, made_from)
            continue
        with time_limit((limits or {}).get(name, math.inf)) as limit:
            adapter, history = fit(recipe, pairs, validation, device=device, progress=progress)
        if limit.reached:
            warnings.warn(
                f"{name}: took much longer than expected, and its training was stopped after an epoch; with "
                "more time it may get better.",
                stacklevel=2,
            )
        elif folder is not None:
            if history:
                found = best_epoch(history).validation
            else:
                found = RetrievalMetrics.from_ranks(row_ranks(recipe, adapter.for_inference(), validation))
            Artifact(adapter, pairs.space, made_from, metrics={"validation": asdict(found)}).save(folder)
        adapters[name] = adapter
    return adapters


def _kept(folder: Path, made_from: Mapping[str, Any]) -> Adapter:
    """Load the adapter that an interrupted comparison has kept.

    Raises:
        DITSError: it was made from other pairs, or with another recipe.
    """
    artifact = Artifact.load(folder)
    if artifact.training != made_from:
        raise DITSError(
            f"{folder}: was made from other pairs, or with another recipe, than this comparison has. "
            "Choose another folder, or delete this one."
        )
    return artifact.adapter


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
        progress: show a progress bar on a terminal.

    Raises:
        InputError: plain CLIP is not among the adapters.
    """
    return tabulate_folds(
        [measure(adapters, validation, test, rows=rows, progress=progress)], [(pairs, validation, test)], rows
    )


def _shared(few: Rows, many: Rows) -> set[bytes]:
    """Return the digests of the rows that both have; the larger one is read block by block, and not kept."""
    known = {digest for block in blocks(few) for digest in _digests(block)}
    return {digest for block in blocks(many) for digest in _digests(block) if digest in known}


def _digests(rows: NDArray[np.float32]) -> Iterator[bytes]:
    return (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)


def _digest(pairs: Pairs, validation: Pairs) -> str:
    """Return a digest of the pairs and of the package's version, which determine the adapters."""
    digest = hashlib.sha256(version("dits-adapter").encode())
    digest.update(np.ascontiguousarray(validation.video).tobytes())  # those that no text describes, too
    for split in (pairs, validation):
        digest.update(np.ascontiguousarray(split.labels).tobytes())
        for vectors in (split.matches.text, split.matches.video):
            for block in blocks(vectors):
                digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()
