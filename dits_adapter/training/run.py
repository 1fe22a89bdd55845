"""Training run from cached pairs to an artifact with the record of its training and its metrics."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter._wording import counted
from dits_adapter.adapters import Adapter, adapter_entry
from dits_adapter.artifact._find import is_artifact, require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data._named import PairsSource
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import InputError
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.calibration import Calibration, fit_calibration
from dits_adapter.evaluation.metrics import (
    Difference,
    RetrievalMetrics,
    Scores,
    bootstrap,
    paired_bootstrap,
)
from dits_adapter.training._banked import with_bank
from dits_adapter.training._gentle import fit_gently, is_gentle
from dits_adapter.training._initial import fit_closed_form, initialize, require_across
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training._parts import Parts, warn_if_few
from dits_adapter.training._precision import settle_precision
from dits_adapter.training._processes import from_first, is_first, wait_for_all
from dits_adapter.training._state import Epoch, best_epoch
from dits_adapter.training._time_limit import note_stop, was_stopped
from dits_adapter.training.config import Recipe
from dits_adapter.training.rows import reference

__all__ = [
    "TrainingReport",
    "calibrate",
    "calibrate_scores",
    "describe",
    "fit",
    "train_artifact",
]

_NORMS = 1000
"""Texts whose norms are looked at."""


@dataclass(frozen=True)
class TrainingReport:
    """Result of a training run; `str` of it is figures and notes.

    Attributes:
        artifact: the trained adapter.
        history: epochs of the training; empty for adapters that are fitted at once.
        adapter: name of the kind of adapter, as the recipe has it.
        metrics: metrics of the trained adapter on the test pairs.
        incumbent: name of the adapter to compare with: `plain CLIP`, or the artifact at `out`.
        differences: metric by metric, the trained adapter minus the incumbent on the same queries.
        choice: settings that cross-validation chose, and by what; empty for adapters that are not fitted so.
        notes: sentences about the pairs.
        written: folder of the artifact; None where `only_if_better` was set and the adapter was not better.
        warnings: sentences that were warned of: few videos, or no probabilities. `str` leaves them out.
    """

    artifact: Artifact = field(repr=False)
    history: Sequence[Epoch] = field(repr=False)
    adapter: str
    metrics: RetrievalMetrics
    incumbent: str
    differences: dict[str, Difference]
    choice: dict[str, float]
    notes: tuple[str, ...]
    written: Path | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        found, gain, choice = self.metrics, self.differences["r1"], self.choice
        lines = [
            *self.notes,
            f"{self.adapter}: R@1 {found.r1:.1f}, R@5 {found.r5:.1f}, R@10 {found.r10:.1f} on "
            f"{counted(found.n, 'held-out query', 'held-out queries')}; "
            f"R@1 {gain.difference:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}] against {self.incumbent}",
        ]
        if choice:
            lines.append(
                f"chosen by cross-validation: strength {choice['strength']:g}, centering {choice['centering']:g}, "
                f"penalty {choice['penalty']:g}, {counted(int(choice['steps']), 'step')}; held-out MRR "
                f"{choice['held_out_mrr_gain']:+.3f} ± {choice['standard_error']:.3f} (standard error)"
            )
        nothing = f"not better than {self.incumbent} by more than noise: nothing written"
        return "\n".join([*lines, nothing if self.written is None else f"written to {self.written}"])


def fit(
    recipe: Recipe,
    pairs: Pairs,
    validation: Pairs,
    *,
    device: str | torch.device = "auto",
    checkpoints: Path | None = None,
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[Adapter, list[Epoch]]:
    """Fit the recipe's adapter, in closed form or by gradient; arguments as for `train`.

    Returns:
        The adapter, and the epochs of its training: none for an adapter that is not trained by gradient.
    """
    entry = adapter_entry(recipe.adapter)
    require_across(recipe.adapter, pairs.space)
    if is_gentle(recipe):
        return fit_gently(recipe, pairs)[0], []
    if entry.closed_form is not None:
        return fit_closed_form(recipe.adapter, pairs, validation), []
    if recipe.bank != "none":
        alone = recipe.model_copy(update={"bank": "none"})
        adapter, history, stopped = _with_bank(alone.model_dump_json(), pairs, validation, device)
        if stopped:
            note_stop()
        return adapter, history
    torch.manual_seed(recipe.training.seed)
    adapter = recipe.build_adapter(pairs.space.video.width, pairs.space.other_text_width)
    start, training = (None if checkpoints is None else checkpoints / stage for stage in ("start", "training"))
    initialize(adapter, pairs, validation, recipe.training, device=device, checkpoints=start, progress=progress)
    if not entry.contrast or not any(True for _ in adapter.parameters()):
        return adapter.eval().cpu(), []
    history = train(
        adapter,
        pairs,
        validation,
        recipe.training,
        device=device,
        checkpoints=training,
        log_dir=log_dir,
        progress=progress,
    )
    return adapter.cpu(), history


@lru_cache(maxsize=1)
def _with_bank(
    recipe: str, pairs: Pairs, validation: Pairs, device: str | torch.device
) -> tuple[Adapter, list[Epoch], bool]:
    """Train the adapter of a recipe (JSON) and put a bank behind it, once for all uses of the bank.

    Returns:
        The adapter, the epochs of its training, and True where a time limit stopped a training.
    """
    alone = Recipe.model_validate_json(recipe)
    if alone.build_adapter(pairs.space.video.width, pairs.space.other_text_width).needs_video:
        raise InputError(f"adapter {alone.adapter!r} depends on the video here; a bank cannot stand behind it.")

    def train_on(part: Pairs) -> tuple[Adapter, list[Epoch]]:
        return fit(alone, part, validation, device=device, progress=False)

    adapter, history = train_on(pairs)
    banked = with_bank(adapter, pairs, lambda part: train_on(part)[0])
    return banked, history, was_stopped()


def train_artifact(
    pairs: PairsSource,
    recipe: Recipe | str,
    out: str | PathLike[str],
    *,
    dataset: str | None = None,
    test: PairsSource | None = None,
    test_fraction: float = 0.1,
    only_if_better: bool = False,
    device: str | torch.device = "auto",
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> TrainingReport:
    """Train on one part of the pairs, choose the epoch on a second, measure on a third, write the artifact.

    Probabilities are calibrated on the second part, so that the third stays untouched; they are a little too high,
    since the adapter was chosen on the same part.

    A killed run goes on from the folder `OUT.checkpoints`, which is removed once the artifact is written. Of
    processes that train together (torch.distributed is initialized) the first one writes; all return the report.

    Args:
        pairs: all pairs, or those to train on where `test` is given; or the path of their cache.
        recipe: adapter and optimization, or the name of a preset (`"best"`).
        out: folder of the artifact; an artifact in it is the incumbent, and is replaced.
        dataset: name of the pairs, for the artifact's record; by default that of their cache.
        test: held-out pairs of other videos, or the path of their cache.
        test_fraction: share of the videos to hold out where `test` is not given. In any case no more than
            `TrainingConfig.most_held_out` are measured on.
        only_if_better: write only where R@1 on the test pairs beats the incumbent's (plain CLIP's where there is
            none) by more than noise: the 95 % paired bootstrap interval, resampled by video, lies above 0.
        device, log_dir, progress: see `train`.

    Raises:
        InputError: texts of unit norm for an adapter that `needs_norm`; see also `train`.
        DITSError: see `train`.
        SpaceMismatchError: test pairs or incumbent of another space.
        ArtifactError: something else is at `out`.
    """
    target = Path(out)
    require_free(target.absolute())
    if isinstance(recipe, str):
        recipe = Recipe.read(recipe)
    if recipe.bank in ("scores", "both"):
        raise InputError("a score bias belongs to the searched videos, not to an adapter; take bank=queries.")
    parts = Parts.open(pairs, recipe.training, test=test, test_fraction=test_fraction, dataset=dataset)
    space = parts.train.space
    _check_fit(recipe, parts.train)
    incumbent = Artifact.load(target) if is_artifact(target) else None
    if incumbent is not None:
        space.require(incumbent.space, mine="the training pairs", theirs=f"the adapter at {target}")
    doubts: list[str] = []
    few = "differences below that mean nothing. Hold out more videos, or take the simplest adapter."
    warn_if_few(parts.test, few, doubts)
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    history: Sequence[Epoch] = []
    choice: dict[str, float] = {}
    if is_gentle(recipe):
        adapter, choice = fit_gently(recipe, parts.train)
    else:
        adapter, history = fit(
            recipe,
            parts.train,
            parts.validation,
            device=device,
            checkpoints=checkpoints,
            log_dir=log_dir,
            progress=progress,
        )
    best = best_epoch(history) if history else None
    ranks = evaluate(adapter, parts.test)
    if incumbent is not None:
        name, compared = str(target), incumbent.adapter
    else:
        name = "plain CLIP" if space.shared else "chance"
        compared = fit_closed_form(reference(space), parts.train, parts.validation)
    differences = paired_bootstrap(evaluate(compared, parts.test), ranks, parts.test.labels)
    artifact = Artifact(
        adapter,
        space,
        training={
            **parts.record(),
            "recipe": recipe.model_dump(mode="json"),
            "best_epoch": best and best.number,
            "best_learning_rate": best and best.learning_rate,
            "precision": best and settle_precision(recipe.training, adapter, pick_device(device)).precision,
            "choice": choice,
        },
        metrics={"test": describe(ranks, parts.test.labels)},
        calibration=calibrate(adapter, parts.validation, doubts),
    )
    better = from_first(lambda: not only_if_better or differences["r1"].low > 0)
    wait_for_all()  # an artifact that is there may still be read
    if is_first():
        if better:
            artifact.save(target)
        if checkpoints.exists():
            shutil.rmtree(checkpoints)
    wait_for_all()
    return TrainingReport(
        artifact,
        history,
        adapter=recipe.adapter,
        metrics=RetrievalMetrics.from_ranks(ranks),
        incumbent=name,
        differences=differences,
        choice=choice,
        notes=tuple(artifact.training.get("notes", ())),
        warnings=tuple(doubts),
        written=target.absolute() if better else None,
    )


def _check_fit(recipe: Recipe, pairs: Pairs) -> None:
    """Refuse a recipe whose adapter cannot be trained on pairs of this kind, before the work.

    Raises:
        InputError: an adapter that stays near the text, for texts of another space; or texts of unit norm, for an
            adapter that depends on the norm that CLIP gives a query.
    """
    space = pairs.space
    require_across(recipe.adapter, space)
    if not adapter_entry(recipe.adapter).trained:
        return
    if recipe.build_adapter(space.video.width, space.other_text_width).needs_norm:
        _require_norms(pairs.matches.text[:_NORMS])


def calibrate(adapter: Adapter, pairs: Pairs, doubts: list[str] | None = None) -> Calibration | None:
    """Calibrate probabilities on held-out pairs, by `calibrate_scores`; None for an adapter that `needs_video`."""
    if adapter.needs_video:  # such an adapter scores pairs, and searches no index
        return None
    return calibrate_scores(cosine_scores(adapter.for_inference(), pairs.text, pairs.video), pairs.labels, doubts)


def calibrate_scores(scores: Scores, labels: NDArray[Any], doubts: list[str] | None = None) -> Calibration | None:
    """Calibrate probabilities on cosines; None, with a warning, where `fit_calibration` refuses them.

    The sentence of the warning is added to `doubts`.
    """
    try:
        return fit_calibration(scores, labels).calibration
    except InputError as error:
        message = f"the adapter gets no probabilities: {error}"
        warnings.warn(message, stacklevel=2)
        if doubts is not None:
            doubts.append(message)
        return None


def _require_norms(text: NDArray[Any]) -> None:
    """Refuse normalized texts for an adapter that depends on the norm that CLIP gives a query."""
    norms = np.linalg.norm(text, axis=1)
    if np.allclose(norms, 1, atol=1e-3):
        raise InputError(
            "the texts have unit norm, but this recipe's adapter takes them raw, with the norm that CLIP gives a "
            "query. Embed the texts again without normalizing them, or use sampler.input=unit (options.input=unit "
            "for other adapters than dits)."
        )


def describe(ranks: NDArray[Any], labels: NDArray[Any]) -> dict[str, str | int]:
    """Format each metric with its 95 % bootstrap interval, for an artifact's record."""
    metrics, intervals = RetrievalMetrics.from_ranks(ranks), bootstrap(ranks, labels)
    cells: dict[str, str | int] = {
        name: f"{getattr(metrics, name):.4g} [{low:.4g}, {high:.4g}]" for name, (low, high) in intervals.items()
    }
    return {"queries": metrics.n, **cells}
