"""Distillation of a trained sampler into a smaller one: fewer steps, or a smaller network.

The student is a DITS adapter with as little as a tenth of the multiplications. Each of its steps is trained
towards the point of the teacher's trajectory at the same share of the steps, and the last step also towards the
videos.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits_adapter._wording import counted, validated
from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.adapters.base import cosines
from dits_adapter.artifact._find import require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data._named import PairsSource
from dits_adapter.encoders._torch import pick_device, weights_digest
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import Difference, RetrievalMetrics, paired_bootstrap
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training._losses import Objective, contrastive_loss
from dits_adapter.training._parts import Parts, warn_if_few
from dits_adapter.training._precision import settle_precision
from dits_adapter.training._state import Epoch, best_epoch
from dits_adapter.training.config import SMALL_DEPTH, SMALL_MLP_RATIO, TrainingConfig
from dits_adapter.training.run import calibrate, describe

__all__ = [
    "TRAJECTORY_WEIGHT",
    "Distillation",
    "distill",
    "query_milliseconds",
    "small_student",
    "student_of",
    "trajectory_objective",
]

_QUERIES = 21
"""Queries that a time is the median of."""

TRAJECTORY_WEIGHT = 10.0
"""Weight of the trajectory loss (mean 1 − cosine to the teacher's points) beside the contrastive loss."""


@dataclass(frozen=True)
class Distillation:
    """Result of a distillation; `str` of it is figures and notes.

    Attributes:
        student: the distilled adapter.
        history: epochs of the student's training.
        steps: truncated timesteps T' of the student.
        metrics: metrics of the student on the test pairs.
        teacher: metrics of the teacher on the same pairs.
        differences: metric by metric, student minus teacher on the same queries.
        notes: sentences about the pairs.
        written: folder of the artifact; None where R@1 is below the teacher's by more than noise.
        warnings: sentences that were warned of: few videos, or no probabilities. `str` leaves them out.
    """

    student: Artifact = field(repr=False)
    history: Sequence[Epoch] = field(repr=False)
    steps: int
    metrics: RetrievalMetrics
    teacher: RetrievalMetrics
    differences: dict[str, Difference]
    notes: tuple[str, ...]
    written: Path | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        gain = self.differences["r1"]
        judged = (
            f"student, T' = {self.steps}: R@1 {self.metrics.r1:.1f}; teacher {self.teacher.r1:.1f}, on "
            f"{counted(self.metrics.n, 'held-out query', 'held-out queries')}; "
            f"R@1 {gain.difference:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
        )
        end = f"written to {self.written}"
        if self.written is None:
            end = "below the teacher by more than noise: nothing written. Try more steps, epochs or blocks."
        return "\n".join([*self.notes, judged, end])


def student_of(
    teacher: DITSAdapter, steps: int, depth: int | None = None, mlp_ratio: float | None = None
) -> DITSAdapter:
    """Build a student that starts from the teacher's weights where their shapes agree.

    Args:
        teacher: a DITS adapter without condition.
        steps: T' of the student, at most the teacher's.
        depth: blocks of its network; the teacher's by default.
        mlp_ratio: hidden width of a block's MLP over d; the teacher's by default.

    Raises:
        InputError: a conditioned teacher, or a student that is not smaller.
    """
    config = teacher.config
    if config.condition != "none":
        raise InputError(f"the teacher is conditioned on the {config.condition}; its path depends on the video.")
    if not 1 <= steps <= config.steps:
        raise InputError(f"a student of {steps} steps; the teacher takes {config.steps}, a student 1 to as many.")
    chosen = {"steps": steps, "depth": depth, "mlp_ratio": mlp_ratio, "noise_scale": 0.0}
    fields = {**config.model_dump(), **{name: value for name, value in chosen.items() if value is not None}}
    try:
        student = DITSAdapter(validated(SamplerConfig, fields))
    except InputError as error:
        raise InputError(f"the student: {error}") from None
    own, most = student.config.matrices, config.matrices
    if own >= most:
        raise InputError(
            f"a student that takes a query through {own:g} d × d matrices; a student has to be smaller than its "
            f"teacher, who takes it through {most:g}: fewer steps, fewer blocks, or a lower MLP ratio."
        )
    weights, inherited = student.state_dict(), teacher.state_dict()
    student.load_state_dict(
        {
            name: inherited[name] if name in inherited and inherited[name].shape == fresh.shape else fresh
            for name, fresh in weights.items()
        }
    )
    return student


def small_student(adapter: Adapter) -> DITSAdapter | None:
    """Return the untrained student with the network of `best` and all steps; None where that is not smaller."""
    if not isinstance(adapter, DITSAdapter):
        return None
    try:
        return student_of(adapter, adapter.steps, SMALL_DEPTH, SMALL_MLP_RATIO)
    except InputError:
        return None


def query_milliseconds(adapter: Adapter) -> float:
    """Return the median time of one query through the form for inference, on the adapter's device."""
    ready, query = adapter.for_inference(), np.ones((1, adapter.text_width), np.float32)
    taken = []
    for _ in range(_QUERIES):
        started = time.perf_counter()
        ready.adapt(query)
        taken.append(time.perf_counter() - started)
    return 1e3 * float(np.median(taken))


def trajectory_objective(teacher: DITSAdapter, weight: float = TRAJECTORY_WEIGHT) -> Objective:
    """Return the loss of a student: contrast with the videos, and distance to the teacher's trajectory.

    It is the contrastive loss of the student's last points, plus `weight` times the mean, over the student's steps
    s = 1 … S and the batch, of 1 − cos(u_s, w_r): u_s is the point that the student has reached, and w_r that of
    the teacher after r = s · T' / S of its T' steps, rounded.

    Args:
        teacher: a trained DITS without condition.
        weight: weight of the distance.
    """
    ready = teacher.for_inference()

    def objective(adapter: Adapter, text: Tensor, video: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
        with torch.no_grad():
            path = ready.trajectory(text)
        own = adapter.trajectory(text)
        stride = (len(path) - 1) / (len(own) - 1)
        distances = [
            1 - F.cosine_similarity(point.float(), path[round(stride * step)].float(), dim=1).mean()
            for step, point in enumerate(own)
            if step
        ]
        with torch.autocast(text.device.type, enabled=False):
            contrast = contrastive_loss(cosines(own[-1], video), logit_scale, labels)
        return contrast + weight * torch.stack(distances).mean()

    return objective


def distill(
    teacher: str | PathLike[str] | Artifact,
    pairs: PairsSource,
    out: str | PathLike[str],
    *,
    dataset: str | None = None,
    steps: int = 1,
    depth: int | None = None,
    mlp_ratio: float | None = None,
    trajectory_weight: float = TRAJECTORY_WEIGHT,
    training: TrainingConfig | None = None,
    test: PairsSource | None = None,
    test_fraction: float = 0.1,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Distillation:
    """Train a student on one part of the pairs, choose its epoch on a second, compare it on a third.

    With the pairs, `test_fraction` and seed that the teacher was trained with, the held-out videos are its own. A
    killed run goes on from the folder `OUT.checkpoints`, which is removed at the end.

    Args:
        teacher: a trained DITS: its folder, bundled name or hub id, or the artifact.
        pairs: all pairs, or those to train on where `test` is given; or the path of their cache.
        out: folder of the artifact; an artifact in it is replaced.
        dataset: name of the pairs, for the artifact's record; by default that of their cache.
        steps, depth, mlp_ratio: see `student_of`.
        trajectory_weight: weight of the trajectory loss beside the contrastive loss. With 0 the student learns
            from the videos alone: the control of a distillation.
        training: the optimization.
        test: held-out pairs of other videos, or the path of their cache.
        test_fraction: share of the videos to hold out where `test` is not given. In any case no more than
            `TrainingConfig.most_held_out` are measured on.
        device, progress: see `train`.

    Returns:
        The student is written only where the 95 % paired bootstrap interval of its R@1 minus the teacher's,
        resampled by video, reaches 0.

    Raises:
        InputError: a teacher that is no DITS, a negative or infinite weight, or see `student_of` and `train`.
        DITSError: see `train`. Checkpoints of another teacher are ignored.
        SpaceMismatchError: pairs of another space than the teacher's.
        ArtifactError: something else is at `out`.
    """
    target = Path(out)
    require_free(target.absolute())
    if not (trajectory_weight >= 0 and math.isfinite(trajectory_weight)):
        raise InputError(f"the weight of the trajectory loss is {trajectory_weight:g}; expected 0 or more.")
    teacher = teacher if isinstance(teacher, Artifact) else Artifact.load(teacher)
    if not isinstance(teacher.adapter, DITSAdapter):
        raise InputError(f"an adapter of kind {teacher.adapter.kind} has no steps to save; distill DITS.")
    training = training or TrainingConfig()
    torch.manual_seed(training.seed)
    student = student_of(teacher.adapter, steps, depth, mlp_ratio)
    parts = Parts.open(pairs, training, test=test, test_fraction=test_fraction, dataset=dataset)
    teacher.space.require(parts.train.space, mine="the teacher", theirs="the pairs")
    doubts: list[str] = []
    warn_if_few(parts.test, "almost any student is within that noise. Hold out more videos.", doubts)
    trained = teacher.adapter.to(pick_device(device))
    objective = trajectory_objective(trained, trajectory_weight)
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    history = train(
        student,
        parts.train,
        parts.validation,
        training,
        objective=objective,
        device=device,
        checkpoints=checkpoints / f"{weights_digest(teacher.adapter)[:16]}-{trajectory_weight:g}",
        progress=progress,
    )
    student_ranks, teacher_ranks = evaluate(student.cpu(), parts.test), evaluate(trained.cpu(), parts.test)
    differences = paired_bootstrap(teacher_ranks, student_ranks, parts.test.labels)
    record = {
        **parts.record(),
        "teacher": {"dits": teacher.adapter.config.model_dump(mode="json"), "training": teacher.training},
        "recipe": {"training": training.model_dump(mode="json"), "trajectory_weight": trajectory_weight},
        "best_epoch": best_epoch(history).number,
        "precision": settle_precision(training, student, pick_device(device)).precision,
    }
    metrics = {
        "test": describe(student_ranks, parts.test.labels),
        "test, teacher": describe(teacher_ranks, parts.test.labels),
    }
    calibration = calibrate(student, parts.validation, doubts)
    artifact = Artifact(student, teacher.space, record, metrics, calibration, teacher.encoder, teacher.xpool)
    written = artifact.save(target) if differences["r1"].high >= 0 else None
    shutil.rmtree(checkpoints)
    return Distillation(
        artifact,
        history,
        steps=steps,
        metrics=RetrievalMetrics.from_ranks(student_ranks),
        teacher=RetrievalMetrics.from_ranks(teacher_ranks),
        differences=differences,
        notes=tuple(artifact.training.get("notes", ())),
        warnings=tuple(doubts),
        written=written,
    )
