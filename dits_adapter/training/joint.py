"""Joint mode: CLIP, X-Pool head and alignment network learn together from video files, on one or many processes.

    dits-adapter train-joint PAIRS.jsonl --encoder openai/clip-vit-base-patch32 --out FOLDER
    torchrun --nproc-per-node 2 -m dits_adapter.training.joint PAIRS.jsonl --encoder … --out FOLDER

The result moves the embedding space: its artefact bundles the trained CLIP, and an index made with the original is
refused. The loop, mixed precision, resumption and logging are those of `transformers.Trainer`.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments, set_seed

from dits_adapter.adapters import Adapter
from dits_adapter.artifact import ENCODER, Artifact, require_free
from dits_adapter.clip import Clip, ClipSource, load_clip, weights_digest
from dits_adapter.errors import DITSError, InputError, MissingExtraError
from dits_adapter.metrics import METRICS, DotProducts, RetrievalMetrics, Scores, ranks
from dits_adapter.space import EmbeddingSpace
from dits_adapter.training import clips
from dits_adapter.training.clips import (
    Captions,
    ClipDataset,
    ClipLoader,
    ReadClip,
    TrainingDataset,
    find_broken,
    read_clip,
)
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.frozen import MAX_LOGIT_SCALE, fresh_adapter, summary_writer
from dits_adapter.training.losses import contrastive_loss
from dits_adapter.training.run import calibrate_scores
from dits_adapter.video.pooling import mean_pool, unit
from dits_adapter.video.xpool import XPool, XPoolScores

try:
    from accelerate import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import gather_object  # type: ignore[import-untyped]
except ImportError:
    raise MissingExtraError("accelerate", "joint", "joint training") from None

RUN = "run.json"
"""File among the checkpoints that says which run they are of."""


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all processes in their order; gradients flow back to the process they belong to."""
    if not torch.distributed.is_initialized():
        return tensor
    from sentence_transformers.util.distributed import all_gather_with_grad

    return all_gather_with_grad(tensor)


class JointModel(nn.Module):
    """CLIP, X-Pool head and adapter with the loss of a whole batch, as the Trainer wants it.

    Every process embeds its share of the batch and compares its texts with the videos of all; the loss, on each
    process the same, is that of the whole batch. The mean of its gradients over the processes, which is what
    DistributedDataParallel takes, is the gradient of one process with the whole batch.
    """

    def __init__(self, clip: nn.Module, xpool: XPool, adapter: Adapter) -> None:
        super().__init__()
        self.clip: Any = clip
        self.xpool = xpool
        self.adapter = adapter

    def embed_clips(self, pixels: Tensor) -> Tensor:
        """Embed frames (b, f, 3, size, size): (b, f, d), un-normalised, in the precision of the weights."""
        frames: Tensor = self.clip.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output
        return frames.to(self.clip.logit_scale.dtype).unflatten(0, pixels.shape[:2])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pixels: Tensor, video: Tensor
    ) -> dict[str, Tensor]:
        """Return the loss of (text, clip) pairs.

        Args:
            input_ids: tokens, (b, tokens).
            attention_mask: likewise.
            pixels: frames, (b, f, 3, size, size).
            video: which video each pair belongs to, (b,).
        """
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        text = self.clip.get_text_features(**tokens).pooler_output.to(self.clip.logit_scale.dtype)
        frames = gather(self.embed_clips(pixels))
        similarity = gather(self.xpool.similarity(self.adapter(text), text, frames))
        return {"loss": contrastive_loss(similarity, self.clip.logit_scale.exp(), gather(video))}


class _JointTrainer(Trainer):
    """The Trainer, reading pairs in their order and validating by retrieval."""

    def __init__(self, *, clip: Clip, validation: Captions, **options: Any) -> None:
        self.clip, self.validation = clip, validation
        super().__init__(**options)

    def _loader(self, data: Any, collate: Any = None) -> Iterable[dict[str, Tensor]]:
        """Yield this process's share of the batches."""
        loader = DataLoader(
            data,
            self.args.per_device_train_batch_size,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=clips.die_with_parent,
            multiprocessing_context=_worker_context() if self.args.dataloader_num_workers else None,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_train_dataloader(self) -> Any:
        return self._loader(self.train_dataset, self.data_collator)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in self.retrieval().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.inference_mode()
    def retrieval(self) -> dict[str, float]:
        """Search the validation videos with their texts: `xpool_r1`, `mean_r1`, ….

        `xpool` pools the frames under each query, as training does; `mean` is what an index can hold, and keeps
        its scores in `cosines`.
        """
        model: Any = self.model
        model.eval()
        batches = self._loader(self.eval_dataset)
        embed = model.embed_clips
        frames = torch.cat([self.accelerator.gather_for_metrics(embed(batch["pixels"])) for batch in batches])
        text = self.clip.embed_texts(self.validation.texts)
        queries = model.adapter.for_inference().adapt(text)
        self.cosines = DotProducts(unit(queries.cpu().numpy()), mean_pool(frames.cpu().numpy()))
        scores: dict[str, Scores] = {
            "xpool": XPoolScores(model.xpool, queries, text, frames),
            "mean": self.cosines,
        }
        found: dict[str, float] = {}
        for pooling, matrix in scores.items():
            metrics = RetrievalMetrics.from_ranks(ranks(matrix, self.validation.labels))
            found |= {f"{pooling}_{name}": getattr(metrics, name) for name in METRICS}
        return found


def _worker_context() -> Any:
    """Start workers from a process without threads: a fork of this one may inherit a lock that nobody opens."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([clips.__name__, "transformers.models.clip.image_processing_pil_clip"])
    return context


class _Watch(TrainerCallback):
    """Keeps CLIP's temperature in its limits after each step, and stops where the loss is no number."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            kwargs["model"].clip.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise DITSError(
                f"the loss became {loss} before step {state.global_step}; lower the learning rates or "
                "sampler.noise_scale."
            )


def train_joint(
    captions: Captions,
    recipe: JointRecipe,
    out: str | PathLike[str],
    *,
    encoder: str | PathLike[str],
    dataset: str,
    validation: Captions | None = None,
    revision: str | None = None,
    read: ReadClip = read_clip,
    log_dir: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Path | None:
    """Train CLIP, X-Pool head and alignment network (or another adapter) on video files; write the joint artefact.

    Runs in every process that `torchrun` starts; the first one writes. A killed run, started again with the same
    arguments and number of processes, goes on from `OUT.checkpoints` and ends with the weights of an uninterrupted
    one; the checkpoints are removed once the artefact is written. (They are the Trainer's: weights as safetensors,
    optimiser and random states as torch files that are read without running code.) A script that calls this with
    `recipe.workers` needs `if __name__ == "__main__":`, because workers import it.

    Args:
        captions: pairs. Videos that cannot be decoded are left out with a warning.
        recipe: the optimisation.
        out: folder of the artefact; one that is there is replaced.
        encoder: the CLIP to start from: folder, bundled name or hub id.
        dataset: what the pairs are, for the artefact's record.
        validation: pairs of other videos, to choose the checkpoint; by default a share of the videos is held out.
        revision: hub revision of the encoder.
        read: how clips are decoded.
        log_dir: folder for TensorBoard event files.
        progress: show progress bars.

    Returns:
        The artefact's folder; None in processes other than the first.

    Raises:
        ArtifactError: something else is at `out`, or no CLIP at `encoder`.
        InputError: too few pairs, a batch that the processes cannot share, or several GPUs without torchrun.
        DITSError: the loss became NaN or infinite, or the checkpoints belong to another run.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes == 1 and torch.cuda.device_count() > 1:
        raise InputError(
            f"{torch.cuda.device_count()} GPUs are visible to one process. Use all with torchrun --nproc-per-node "
            f"{torch.cuda.device_count()} -m dits_adapter.training.joint …, or one with CUDA_VISIBLE_DEVICES=0."
        )
    if recipe.batch_size % state.num_processes:
        raise InputError(f"batch_size {recipe.batch_size} cannot be shared by {state.num_processes} processes.")
    target = Path(out).absolute()
    require_free(target)
    set_seed(recipe.seed)
    clip = load_clip(encoder, revision=revision, device="cpu")
    vision: Any = clip.model.config.vision_config
    clip.model.requires_grad_(True)
    if recipe.gradient_checkpointing:
        # Its successor's name, activation_checkpointing_enable, came with transformers 5.23.
        clip.model.gradient_checkpointing_enable({"use_reentrant": False})
    adapter = fresh_adapter(recipe.adapter, clip.width, recipe.sampler_config(clip.width), recipe.options)
    if adapter.needs_video or recipe.adapter == "diffusion-pretrained":
        raise InputError(
            f"the adapter {recipe.adapter} is for frozen mode: joint mode trains by contrast, and adapters see no "
            "video in it (condition none or text)."
        )
    model = JointModel(clip.model, XPool(clip.width, recipe.dropout), adapter)
    captions = _without_broken(captions, recipe, read, state, progress)
    if validation is None:
        train, validation = captions.split(recipe.validation, recipe.seed)
    else:
        train, validation = captions, _without_broken(validation, recipe, read, state, progress)
    load = ClipLoader(recipe.frames, clip.image_processor, read)
    data = TrainingDataset(
        train,
        load,
        size=vision.image_size,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        flip=recipe.flip,
        seed=recipe.seed,
    )
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    trainer = _JointTrainer(
        clip=clip,
        validation=validation,
        model=model,
        args=_arguments(recipe, data, checkpoints, state, progress),
        data_collator=partial(_collate, clip.tokenizer),
        train_dataset=data,
        eval_dataset=ClipDataset(validation.videos, load),
        optimizers=(_optimizer(model, recipe), None),
        callbacks=[_Watch(), *_loggers(log_dir)],
    )
    # The global generator, because that is the one whose state checkpoints keep; its own on each process.
    device = trainer.args.device
    cuda = device.type == "cuda"
    model.adapter.noise = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
    set_seed(recipe.seed + state.process_index)
    run = {
        "recipe": recipe.model_dump(mode="json"),
        "encoder": weights_digest(clip.model),
        "pairs": [train.digest(), validation.digest()],
        "processes": state.num_processes,
    }
    checkpoint = _last_checkpoint(checkpoints, run)
    before = trainer.retrieval()
    if state.is_main_process:
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / RUN).write_text(json.dumps(run), "utf-8")
    trained = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    after = trainer.retrieval()
    if state.is_main_process:
        if after["xpool_mrr"] <= before["xpool_mrr"]:
            warnings.warn(
                "no checkpoint finds the held-out videos better than the untrained model did; keep that, or train "
                "with other settings or more pairs.",
                stacklevel=2,
            )
        training = {
            "dataset": dataset,
            "base_model": clip.source.name,
            "pairs": {"train": len(train.texts), "validation": len(validation.texts)},
            "videos": {"train": len(train.videos), "validation": len(validation.videos)},
            "recipe": recipe.model_dump(mode="json"),
            "processes": state.num_processes,
            "best_step": trainer.state.best_global_step,
            "pairs_per_second": trained.metrics["train_samples_per_second"],
        }
        metrics = {"validation": after, "validation before training": before}
        moved = replace(clip, source=ClipSource(target.name))
        artifact = Artifact(
            model.adapter,
            EmbeddingSpace.of(moved, frames=recipe.frames),
            training,
            metrics,
            calibrate_scores(trainer.cosines, validation.labels),
            xpool=model.xpool,
        )
        _save(artifact, moved, target)
        shutil.rmtree(checkpoints)
    state.wait_for_everyone()
    return target if state.is_main_process else None


def _arguments(
    recipe: JointRecipe, data: TrainingDataset, checkpoints: Path, state: PartialState, progress: bool
) -> TrainingArguments:
    """Say all that to the Trainer."""
    interval = recipe.checkpoint_steps or data.steps_per_epoch
    return TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=recipe.batch_size // state.num_processes,
        max_steps=data.steps,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * data.steps),
        max_grad_norm=recipe.gradient_norm,
        bf16=recipe.bf16,
        seed=recipe.seed,
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=True,  # with T' = 0 there are some
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=1,  # beside the best one
        load_best_model_at_end=True,
        metric_for_best_model="xpool_mrr",
        greater_is_better=True,
        logging_steps=max(1, interval // 10),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=not progress,
    )


def _without_broken(
    captions: Captions, recipe: JointRecipe, read: ReadClip, state: PartialState, progress: bool
) -> Captions:
    """Leave out the videos that cannot be decoded and say which; the processes share the check."""
    mine = captions.videos[state.process_index :: state.num_processes]
    shown = progress and state.is_main_process
    found = find_broken(mine, recipe.frames, read, workers=recipe.workers, progress=shown)
    broken = {error.path: error for error in gather_object(found)}
    if not broken:
        return captions
    if state.is_main_process:
        reasons = "\n".join(str(error) for error in broken.values())
        warnings.warn(
            f"{len(broken)} of {len(captions.videos)} videos cannot be decoded and are left out:\n{reasons}",
            stacklevel=3,
        )
    return captions.of_videos(row for row, video in enumerate(captions.videos) if video not in broken)


def _collate(tokenizer: PreTrainedTokenizerBase, items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack pairs to a batch; texts are cut at CLIP's 77 tokens."""
    tokens = tokenizer([item["text"] for item in items], padding=True, truncation=True, return_tensors="pt")
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixels": torch.stack([item["pixels"] for item in items]),
        "video": torch.tensor([item["video"] for item in items]),
    }


def _optimizer(model: JointModel, recipe: JointRecipe) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.clip.parameters()), "lr": recipe.clip_learning_rate},
        {"params": [*model.xpool.parameters(), *model.adapter.parameters()], "lr": recipe.learning_rate},
    ]
    return torch.optim.AdamW(groups, eps=1e-6, weight_decay=recipe.weight_decay)


def _loggers(log_dir: str | PathLike[str] | None) -> list[TrainerCallback]:
    if log_dir is None:
        return []
    from transformers.integrations.integration_utils import TensorBoardCallback

    return [TensorBoardCallback(summary_writer(log_dir))]


def _last_checkpoint(folder: Path, run: dict[str, Any]) -> Path | None:
    """Return the last complete checkpoint of this run, None where there is none.

    Raises:
        DITSError: the checkpoints are of another run.
    """
    try:
        theirs = json.loads((folder / RUN).read_text("utf-8"))
    except (OSError, ValueError):  # it is written before the first checkpoint
        return None
    if other := [name for name, value in run.items() if theirs.get(name) != value]:
        raise DITSError(
            f"{folder}: holds checkpoints of a run with another {', '.join(other)}. Remove the folder to start "
            "anew, or write to another place."
        )
    # The state is the last file to be written, but for the random states of other processes.
    complete = [
        path
        for path in folder.glob("checkpoint-*")
        if _is_json(path / "trainer_state.json")
        and sum(map(is_zipfile, path.glob("rng_state*"))) == run["processes"]
    ]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _save(artifact: Artifact, clip: Clip, target: Path) -> None:
    """Write the artefact with the CLIP that was trained along."""
    with tempfile.TemporaryDirectory() as scratch:
        encoder = Path(scratch) / ENCODER
        for part in (clip.model, clip.tokenizer, clip.image_processor):
            part.save_pretrained(encoder)
        replace(artifact, encoder=encoder).save(target)


if __name__ == "__main__":
    from dits_adapter.cli import main

    code = main(["train-joint", *sys.argv[1:]])
    PartialState().destroy_process_group()
    sys.exit(code)
