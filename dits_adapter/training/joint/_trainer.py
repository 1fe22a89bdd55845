"""Loop of joint training: the Trainer of transformers, validated by retrieval."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from dits_adapter._progress import progress_bar
from dits_adapter.encoders._inputs import TextInputs
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.metrics import METRICS, RetrievalMetrics, Scores, ranks
from dits_adapter.training._processes import count
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint._datasets import TrainingDataset
from dits_adapter.training.joint._model import JointModel
from dits_adapter.training.joint._workers import end_with_parent, worker_context, worker_count
from dits_adapter.training.joint.captions import Captions
from dits_adapter.video._pooling import mean_pool
from dits_adapter.xpool import xpool_scores

__all__ = ["JointTrainer", "collate", "joint_optimizer", "trainer_arguments"]


class JointTrainer(Trainer):
    """Trainer that reads pairs in their order and validates by retrieval.

    Args:
        encoder: the encoder, whose model is trained.
        validation: pairs whose videos are the evaluation dataset.
        progress: show progress bars over embedded videos on a terminal.
        options: options of the Trainer.
    """

    def __init__(
        self, *, encoder: DualEncoder, validation: Captions, progress: bool = True, **options: Any
    ) -> None:
        self.encoder, self.validation, self._progress = encoder, validation, progress
        super().__init__(**options)

    def _loader(self, data: Any, collate: Any = None) -> Iterable[dict[str, Tensor]]:
        """Yield this process's share of the batches."""
        loader = DataLoader(
            data,
            self.args.per_device_train_batch_size,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=end_with_parent,
            multiprocessing_context=worker_context() if self.args.dataloader_num_workers else None,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_train_dataloader(self) -> Any:
        """Return this process's share of the training batches."""
        return self._loader(self.train_dataset, self.data_collator)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure retrieval on the validation pairs and log it."""
        metrics = {f"eval_{name}": value for name, value in self.retrieval().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def retrieval(self) -> dict[str, float]:
        """Search the validation videos with their texts: `index_r1`, `xpool_r1`, ….

        `index` is the mean of the frames, which an index can hold, and whose scores `cosines` keeps; `xpool` pools
        the frames under each query, where a head is trained.
        """
        model: Any = self.model
        frames, text = self.embed_clips(self.eval_dataset), self.encoder.embed_texts(self.validation.texts)
        adapter = model.adapter.for_inference()
        self.cosines = cosine_scores(adapter, text, mean_pool(frames.cpu().numpy()))
        scores: dict[str, Scores] = {"index": self.cosines}
        if model.trains_head:
            scores["xpool"] = xpool_scores(model.xpool, adapter, text, frames)
        values: dict[str, float] = {}
        for pooling, matrix in scores.items():
            metrics = RetrievalMetrics.from_ranks(ranks(matrix, self.validation.labels))
            values |= {f"{pooling}_{name}": getattr(metrics, name) for name in METRICS}
        return values

    @torch.inference_mode()
    def embed_clips(self, videos: Any) -> Tensor:
        """Embed the frames of a `ClipDataset`, shared by the processes: (m, f, d), un-normalized."""
        model: Any = self.model
        model.eval()
        gather = self.accelerator.gather_for_metrics
        shown = self._progress and self.is_world_process_zero()
        batches = progress_bar(
            self._loader(videos), desc="embedding videos", unit="batch", leave=False, progress=shown
        )
        return torch.cat([gather(model.embed_clips(batch["pixels"])) for batch in batches])


def trainer_arguments(recipe: JointRecipe, data: TrainingDataset, checkpoints: Path) -> TrainingArguments:
    """Return a recipe as the Trainer's arguments: linear warm-up, cosine to zero, best validation kept."""
    interval = recipe.checkpoint_steps or data.steps_per_epoch
    return TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=recipe.batch_size // count(),
        max_steps=data.steps,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * data.steps),
        max_grad_norm=recipe.gradient_norm,
        bf16=recipe.bf16,
        seed=recipe.seed,
        dataloader_num_workers=worker_count(recipe.workers),
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=True,  # with T' = 0 there are some
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,  # the best one and the last; of 1 the last is deleted before the artifact is written
        load_best_model_at_end=True,
        metric_for_best_model=f"{recipe.select}_mrr",
        greater_is_better=True,
        logging_steps=max(1, interval // 10),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,  # `Progress` shows them
    )


def collate(texts: TextInputs, items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack pairs to a batch; texts are cleaned, and cut where the encoder ends."""
    return {
        **texts(texts.clean([item["text"] for item in items])),
        "pixels": torch.stack([item["pixels"] for item in items]),
        "video": torch.tensor([item["video"] for item in items]),
    }


def joint_optimizer(model: JointModel, recipe: JointRecipe) -> torch.optim.Optimizer:
    """Return AdamW in two groups, CLIP and the rest, each with its rate; as in X-Pool, all parameters decay."""
    groups = [
        {"params": list(model.clip.parameters()), "lr": recipe.clip_learning_rate},
        {"params": [*model.xpool.parameters(), *model.adapter.parameters()], "lr": recipe.learning_rate},
    ]
    return torch.optim.AdamW(groups, eps=1e-6, weight_decay=recipe.weight_decay)
