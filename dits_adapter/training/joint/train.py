"""Joint mode: CLIP, X-Pool head and alignment network learn together from video files, on one or many processes.

    dits-adapter train-joint PAIRS.jsonl --encoder sentence-transformers/clip-ViT-B-32 --out FOLDER
    torchrun --nproc-per-node 2 -m dits_adapter.cli train-joint PAIRS.jsonl --encoder … --out FOLDER

The result moves the embedding space: its artifact bundles the trained CLIP, and an index made with the original is
refused. The loop, mixed precision, resumption and logging are those of `transformers.Trainer`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PrinterCallback, set_seed

from dits_adapter._extras import name_missing_extra
from dits_adapter.artifact._config import ENCODER
from dits_adapter.artifact._find import require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import no_checkpoint_bars, weights_digest
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.texts import check_texts, warn_if_cut
from dits_adapter.training._initial import initialize
from dits_adapter.training._processes import count, is_first, naming_lost_process, place, wait_for_all
from dits_adapter.training.config import JointRecipe, JointSelection
from dits_adapter.training.joint._callbacks import LossWatch, Progress, TimedCheckpoints, loggers
from dits_adapter.training.joint._checkpoints import last_checkpoint, write_run
from dits_adapter.training.joint._clips import ClipLoader, ReadClip, find_failures, read_clip
from dits_adapter.training.joint._datasets import ClipDataset, TrainingDataset
from dits_adapter.training.joint._model import JointModel, initial_model, load_trainable
from dits_adapter.training.joint._trainer import JointTrainer, collate, joint_optimizer, trainer_arguments
from dits_adapter.training.joint.captions import Captions
from dits_adapter.training.run import calibrate_scores
from dits_adapter.video._pooling import mean_pool

with name_missing_extra("joint training"):
    from accelerate import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import gather_object  # type: ignore[import-untyped]

__all__ = ["JointReport", "train_joint"]

_AFTER, _BEFORE = "validation", "validation before training"


@dataclass(frozen=True)
class JointReport:
    """Report of a joint training; `str` of it is the retrieval of the held-out videos before and after it.

    Attributes:
        metrics: retrieval of the held-out videos by the kept checkpoint (`validation`) and by the untrained model
            (`validation before training`): metrics of an index (`index_r1`, `index_mrr`, …), and where an X-Pool
            head is trained those by its scores of all videos (`xpool_r1`, …).
        best_step: step of the optimizer whose checkpoint was kept; None where none was better than the others.
        written: folder of the artifact.
    """

    metrics: dict[str, dict[str, float]]
    best_step: int | None
    written: Path

    def __str__(self) -> str:
        lines = []
        for name, found in self.metrics.items():
            xpool = f", {found['xpool_r1']:.1f} under X-Pool over all videos" if "xpool_r1" in found else ""
            lines.append(f"{name}: R@1 {found['index_r1']:.1f} from an index{xpool}")
        return "\n".join([*lines, f"written to {self.written}"])


@naming_lost_process()
def train_joint(
    captions: str | PathLike[str] | Captions,
    recipe: JointRecipe | str,
    out: str | PathLike[str],
    *,
    encoder: str | PathLike[str],
    dataset: str | None = None,
    validation: str | PathLike[str] | Captions | None = None,
    revision: str | None = None,
    read: ReadClip | None = None,
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> JointReport:
    """Train CLIP, X-Pool head and alignment network (or another adapter) on video files; write the joint artifact.

    Runs in every process that `torchrun` starts; the first one writes. A checkpoint is saved about once a minute,
    to `OUT.checkpoints`. A killed run, started again with the same arguments and number of processes, goes on from
    there and ends with the weights of an uninterrupted one; the checkpoints are removed once the artifact is
    written. (They are the Trainer's: weights as safetensors, optimizer and random states as torch files that are
    read without running code.) A script that calls this with `recipe.workers` needs `if __name__ == "__main__":`,
    because workers import it.

    Args:
        captions: pairs, or the path of their file. Videos that cannot be decoded are left out with a warning.
        recipe: the optimization, or the name of a preset (`"deterministic"`).
        out: folder of the artifact; one that is there is replaced.
        encoder: the CLIP to start from: folder, bundled name or hub id.
        dataset: name of the pairs, for the artifact's record; by default that of their file.
        validation: pairs of other videos, or the path of their file, to choose the checkpoint; by default a share
            of the videos is held out.
        revision: hub revision of the encoder.
        read: function that decodes clips; by default `read_clip` with the limit of the recipe.
        log_dir: folder for TensorBoard event files.
        progress: show progress bars on a terminal, and after the first steps the time that all take, on stderr.

    Returns:
        The report, in every process, once the artifact is written.

    Raises:
        ArtifactError: something else is at `out`, or no CLIP at `encoder`.
        InputError: a caption that is no text, too few pairs, a batch that the processes cannot share, or several
            GPUs without torchrun.
        DITSError: the loss became NaN or infinite, the checkpoints belong to another run, or another process has
            ended.
    """
    recipe = JointRecipe.read(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(captions, Captions):
        dataset, captions = dataset or Path(captions).name, Captions.read(captions)
    if validation is not None and not isinstance(validation, Captions):
        validation = Captions.read(validation)
    PartialState(cpu=not torch.cuda.is_available())  # joins the processes of torchrun
    _check_processes(recipe)
    for pairs in filter(None, (captions, validation)):
        check_texts(pairs.texts)
    target = Path(out).absolute()
    require_free(target)
    set_seed(recipe.seed)
    clip = load_trainable(encoder, recipe, revision)
    model = initial_model(clip, recipe)
    warn_if_cut(captions.texts, clip, stacklevel=2)
    load = ClipLoader(recipe.frames, clip.frames, read or partial(read_clip, limit=recipe.limit))
    captions = _without_failures(captions, load, recipe.workers, progress)
    if validation is None:
        train, held_out = captions.split(recipe.validation, recipe.seed)
    else:
        train, held_out = captions, _without_failures(validation, load, recipe.workers, progress)
    data = TrainingDataset(
        train,
        load,
        size=clip.image_size,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        flip=recipe.flip,
        seed=recipe.seed,
    )
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    trainer = JointTrainer(
        encoder=clip,
        validation=held_out,
        progress=progress,
        model=model,
        args=trainer_arguments(recipe, data, checkpoints),
        data_collator=partial(collate, clip.texts),
        train_dataset=data,
        eval_dataset=ClipDataset(held_out.videos, load),
        optimizers=(joint_optimizer(model, recipe), None),
        callbacks=[LossWatch(), TimedCheckpoints(), *loggers(log_dir)],
    )
    trainer.remove_callback(PrinterCallback)
    metrics, speed = _run(trainer, data, recipe, checkpoints, progress)
    report = JointReport(metrics, trainer.state.best_global_step, target)
    if is_first():
        _warn_if_no_better(metrics, recipe.select)
        record = {
            "dataset": dataset or "pairs",
            "base_model": clip.name,
            "pairs": {"train": len(train.texts), "validation": len(held_out.texts)},
            "videos": {"train": len(train.videos), "validation": len(held_out.videos)},
            "recipe": recipe.model_dump(mode="json"),
            "processes": count(),
            "best_step": report.best_step,
            "pairs_per_second": speed,
        }
        _save(trainer, record, metrics, recipe.frames, target)
        shutil.rmtree(checkpoints)
    wait_for_all()
    return report


def _check_processes(recipe: JointRecipe) -> None:
    """Refuse several GPUs in one process, and a batch that the processes cannot share."""
    gpus = torch.cuda.device_count()
    if count() == 1 and gpus > 1:
        raise InputError(
            f"{gpus} GPUs are visible to one process. Use all with torchrun --nproc-per-node {gpus} "
            "-m dits_adapter.cli train-joint …, or one with CUDA_VISIBLE_DEVICES=0."
        )
    if recipe.batch_size % count():
        raise InputError(f"batch_size {recipe.batch_size} cannot be shared by {count()} processes.")


def _run(
    trainer: JointTrainer, data: TrainingDataset, recipe: JointRecipe, checkpoints: Path, progress: bool
) -> tuple[dict[str, dict[str, float]], float]:
    """Train, from the last checkpoint of this run if there is one.

    Returns:
        Retrieval of the held-out videos after and before, as in `JointReport.metrics`; pairs a second.
    """
    run = {
        "recipe": recipe.model_dump(mode="json"),
        "encoder": weights_digest(trainer.encoder.model),
        "pairs": [data.captions.digest(), trainer.validation.digest()],
        "processes": count(),
    }
    checkpoint = last_checkpoint(checkpoints, run)
    started = time.monotonic()
    before = trainer.retrieval()
    trainer.add_callback(Progress(progress, validation=time.monotonic() - started))
    if checkpoint is None and recipe.pretraining is not None:
        _pretrain(trainer, data, recipe, progress)
    # The global generator, because that is the one whose state checkpoints keep; its own on each process.
    device, model = trainer.args.device, cast(JointModel, trainer.model)
    cuda = device.type == "cuda"
    model.adapter.noise = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
    set_seed(recipe.seed + place())
    if is_first():
        write_run(checkpoints, run)
    result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return {_AFTER: trainer.retrieval(), _BEFORE: before}, result.metrics["train_samples_per_second"]


def _pretrain(trainer: JointTrainer, data: TrainingDataset, recipe: JointRecipe, progress: bool) -> None:
    """Initialize the adapter on the vectors of the untrained CLIP; every process does the same."""
    assert recipe.pretraining is not None
    space = EmbeddingSpace.of(trainer.encoder, frames=recipe.frames)
    pairs, held_out = (
        Pairs(
            trainer.encoder.embed_texts(captions.texts),
            mean_pool(trainer.embed_clips(ClipDataset(captions.videos, data.load)).cpu().numpy()),
            captions.labels,
            space,
        )
        for captions in (data.captions, trainer.validation)
    )
    adapter = cast(JointModel, trainer.model).adapter
    initialize(adapter, pairs, held_out, recipe.pretraining, device=trainer.args.device, progress=progress)


def _warn_if_no_better(metrics: Mapping[str, Mapping[str, float]], select: JointSelection) -> None:
    """Warn of each way to search in which the held-out videos are found no better than before training."""
    before, after = metrics[_BEFORE], metrics[_AFTER]
    ways = {"index": "what an index finds", "xpool": "X-Pool's scores of all videos"}
    measured = [name for name in ways if f"{name}_mrr" in after]
    worse = [ways[name] for name in measured if after[f"{name}_mrr"] <= before[f"{name}_mrr"]]
    if worse:
        warnings.warn(
            f"by {' and by '.join(worse)}, the kept checkpoint (chosen by {ways[select]}) is no better on the "
            "held-out videos than the untrained model; to search so, keep that one, or train with other settings "
            "or more pairs.",
            stacklevel=3,
        )


def _without_failures(captions: Captions, load: ClipLoader, workers: int, progress: bool) -> Captions:
    """Leave out the videos that cannot be decoded, with a warning; the check is shared by the processes."""
    mine = captions.videos[place() :: count()]
    errors = find_failures(mine, load.frames, load.read, workers=workers, progress=progress and is_first())
    failures = {error.path: error for error in gather_object(errors)}
    if not failures:
        return captions
    if is_first():
        reasons = " ".join(str(error) for error in failures.values())
        warnings.warn(
            f"without {len(failures)} of {len(captions.videos)} videos, which cannot be decoded: {reasons}",
            stacklevel=3,
        )
    return captions.of_videos(row for row, video in enumerate(captions.videos) if video not in failures)


def _save(
    trainer: JointTrainer,
    record: dict[str, Any],
    metrics: dict[str, dict[str, float]],
    frames: int,
    target: Path,
) -> None:
    """Write the artifact, with the CLIP that was trained along and, where scores allow them, probabilities."""
    model, clip = cast(JointModel, trainer.model), trainer.encoder
    source = replace(clip.source, name=target.name, location=str(target / ENCODER), revision=None, modules=())
    calibration = None
    if not model.adapter.needs_video:
        calibration = calibrate_scores(trainer.cosines, trainer.validation.labels)
    with tempfile.TemporaryDirectory() as scratch:
        encoder = Path(scratch) / ENCODER
        with no_checkpoint_bars():
            for part in (clip.model, clip.texts.tokenizer, clip.frames.image_processor):
                part.save_pretrained(encoder)
        Artifact(
            model.adapter,
            EmbeddingSpace.of(replace(clip, source=source), frames=frames),
            record,
            metrics,
            calibration,
            encoder,
            model.xpool if model.trains_head else None,
        ).save(target)
