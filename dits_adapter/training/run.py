"""One training run from cached pairs to an artifact that says what it was trained on and what it is worth."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from dits_adapter.adapters import Adapter, adapter_entry
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.artifact.find import is_artifact, require_free
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.calibration import Calibration, fit_calibration
from dits_adapter.evaluation.metrics import (
    Difference,
    RetrievalMetrics,
    Scores,
    bootstrap,
    paired_bootstrap,
)
from dits_adapter.evaluation.scores import cosine_scores
from dits_adapter.training.config import Recipe
from dits_adapter.training.initial import fit_closed_form, initialize
from dits_adapter.training.loop import evaluate, train
from dits_adapter.training.state import Epoch, best_epoch

__all__ = [
    "TrainingReport",
    "calibrate",
    "calibrate_scores",
    "describe",
    "fit",
    "sizes",
    "train_artifact",
    "warn_if_few",
]

_MAX_ERROR = 5.0
"""Half-width in points of R@1 beyond which a test split is called too small to tell adapters apart."""


@dataclass(frozen=True)
class TrainingReport:
    """Result of a training run.

    Attributes:
        artifact: the trained adapter.
        history: its epochs; empty for adapters in closed form.
        metrics: of the trained adapter on the test pairs.
        incumbent: name of what it was compared with: `plain CLIP`, or the artifact that stood at `out`.
        differences: metric by metric, the trained adapter minus the incumbent on the same queries.
        written: folder of the artifact; None where it was not better and promotion was conditional.
    """

    artifact: Artifact
    history: Sequence[Epoch]
    metrics: RetrievalMetrics
    incumbent: str
    differences: dict[str, Difference]
    written: Path | None


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
    """Fit the recipe's adapter, in closed form or by `initialize` and `train`; arguments as there.

    Returns:
        The adapter, and the epochs of its training: none for what is not trained by gradient.
    """
    entry = adapter_entry(recipe.adapter)
    if entry.closed_form is not None:
        return fit_closed_form(recipe.adapter, pairs, validation), []
    torch.manual_seed(recipe.training.seed)
    adapter = recipe.build_adapter(pairs.space.width)
    start, training = (None if checkpoints is None else checkpoints / stage for stage in ("start", "training"))
    initialize(adapter, pairs, validation, recipe.training, device=device, checkpoints=start)
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


def train_artifact(
    pairs: Pairs,
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    dataset: str,
    test: Pairs | None = None,
    test_fraction: float = 0.1,
    only_if_better: bool = False,
    device: str | torch.device = "auto",
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> TrainingReport:
    """Train on one part of the pairs, choose the epoch on a second, measure on a third, write the artifact.

    Probabilities are calibrated on the second part, so that the third stays untouched; that the adapter was chosen
    there makes them a little too high.

    A killed run goes on from the folder `OUT.checkpoints`, which is removed once the artifact is written.

    Args:
        pairs: all pairs, or those to train on where `test` is given.
        recipe: adapter and optimization.
        out: folder of the artifact; one that is there is the incumbent, and is replaced.
        dataset: what the pairs are, for the artifact's record.
        test: held-out pairs of other videos.
        test_fraction: share of the videos to hold out where `test` is not given.
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
    rest = pairs
    if test is None:
        rest, test = pairs.split(test_fraction, recipe.training.seed)
    pairs.space.require(test.space, mine="the training pairs", theirs="the test pairs")
    if adapter_entry(recipe.adapter).closed_form is None and recipe.build_adapter(pairs.space.width).needs_norm:
        _require_norms(pairs.text)
    incumbent = Artifact.load(target) if is_artifact(target) else None
    if incumbent is not None:
        pairs.space.require(incumbent.space, mine="the training pairs", theirs=f"the adapter at {target}")
    warn_if_few(test, "differences below that mean nothing. Hold out more videos, or take the simplest adapter.")
    kept, validation = rest.split(recipe.training.validation, recipe.training.seed)
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    adapter, history = fit(
        recipe, kept, validation, device=device, checkpoints=checkpoints, log_dir=log_dir, progress=progress
    )
    best = best_epoch(history) if history else None
    found = evaluate(adapter, test)
    if incumbent is not None:
        name, standing = str(target), evaluate(incumbent.adapter, test)
    else:
        name, standing = "plain CLIP", evaluate(fit_closed_form("identity", kept, validation), test)
    differences = paired_bootstrap(standing, found, test.labels)
    metrics = RetrievalMetrics.from_ranks(found)
    artifact = Artifact(
        adapter,
        pairs.space,
        training={
            "dataset": dataset,
            **sizes(train=kept, validation=validation, test=test),
            "recipe": recipe.model_dump(mode="json"),
            "best_epoch": best and best.number,
            "best_learning_rate": best and best.learning_rate,
        },
        metrics={"test": describe(found, test.labels)},
        calibration=calibrate(adapter, validation),
    )
    written = None
    if not only_if_better or differences["r1"].low > 0:
        written = artifact.save(target)
    if checkpoints.exists():
        shutil.rmtree(checkpoints)
    return TrainingReport(artifact, history, metrics, name, differences, written)


def calibrate(adapter: Adapter, held: Pairs) -> Calibration | None:
    """Calibrate probabilities on held-out pairs; None, with a warning, where they are not fit for it."""
    if adapter.needs_video:  # it scores pairs, and searches no index
        return None
    return calibrate_scores(cosine_scores(adapter.for_inference(), held.text, held.video), held.labels)


def calibrate_scores(scores: Scores, labels: np.ndarray) -> Calibration | None:
    """Calibrate probabilities on cosines; see `fit_calibration`. None, with a warning, where they are unfit."""
    try:
        return fit_calibration(scores, labels).calibration
    except InputError as error:
        warnings.warn(f"the adapter gets no probabilities: {error}", stacklevel=2)
        return None


def warn_if_few(test: Pairs, so: str) -> None:
    """Warn where a test split is too small to tell adapters apart; `so` is what follows, for the message."""
    error = 196 * math.sqrt(0.25 / len(test.video))
    if error > _MAX_ERROR:
        message = f"the {len(test.video)} test videos fix R@1 to about ± {error:.0f} points only; {so}"
        warnings.warn(message, stacklevel=3)


def sizes(**splits: Pairs) -> dict[str, dict[str, int]]:
    """Return how many pairs and videos each split has, for an artifact's record."""
    return {
        "pairs": {name: len(split) for name, split in splits.items()},
        "videos": {name: len(split.video) for name, split in splits.items()},
    }


def _require_norms(text: np.ndarray) -> None:
    """Refuse normalized texts: queries come with the norm that CLIP gives them, and the adapter depends on it."""
    norms = np.linalg.norm(text[:1000], axis=1)
    if np.allclose(norms, 1, atol=1e-3):
        raise InputError(
            "the texts have unit norm, but this recipe's adapter takes them raw, with the norm that CLIP gives a "
            "query. Embed the texts again without normalizing them, or use sampler.input=unit (options.input=unit "
            "for other adapters than dits)."
        )


def describe(ranks: np.ndarray, labels: np.ndarray) -> dict[str, str | int]:
    """Write each metric with its 95 % bootstrap interval, for records that people read."""
    metrics, intervals = RetrievalMetrics.from_ranks(ranks), bootstrap(ranks, labels)
    words: dict[str, str | int] = {
        name: f"{getattr(metrics, name):.4g} [{low:.4g}, {high:.4g}]" for name, (low, high) in intervals.items()
    }
    return {"queries": metrics.n, **words}
