"""Training of the adapters that come with the repository: `python -m benchmarks.clips.train_adapters`.

The generated clips of the train and val splits are written, decoded and embedded with `demo-clip`; every adapter
learns from the train split and is judged on the val split; `demo-dits` and the best linear adapter, `demo-linear`,
are saved, with probabilities calibrated on the val split. The test split plays no part: it is the demo's. About
twenty minutes on two CPU cores, most of it the making of clips; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.clips.dataset import make_split
from dits_adapter.adapters import Adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training._loop import evaluate
from dits_adapter.training.config import PRESETS, Recipe, TrainingConfig
from dits_adapter.training.run import calibrate, describe, fit
from dits_adapter.video.encoder import VideoEncoder

__all__ = ["embed_split"]

LINEAR = ("mean-shift", "procrustes", "ridge", "contrastive-linear")
DATASET = "generated clips of benchmarks/clips (colored shapes in motion), train split; not real video"


def embed_split(split: str, root: Path, encoder: VideoEncoder) -> Pairs:
    """Make, decode and embed the clips of a split, or load the vectors of an earlier call in the same space.

    Returns:
        Every caption with its video.
    """
    cache = root / f"{split}-{encoder.space.fingerprint}.safetensors"
    if cache.exists():
        return Pairs.load(cache)
    items = make_split(split, root)
    paths = [root / split / item.video for item in items]
    video = np.stack([segment.vector for segment in encoder.iter_segments(paths)])
    captions = [caption for item in items for caption in item.captions]
    pairs = Pairs(
        encoder.encoder.embed_texts(captions),
        video,
        np.repeat(np.arange(len(items)), [len(item.captions) for item in items]),
        encoder.space,
        tuple(item.video for item in items),
    )
    pairs.save(cache)
    return pairs


def main() -> None:
    """Train, print the metrics of each adapter on the val split, and save two of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--root", type=Path, default=Path("results/clips"), help="where clips and vectors are kept"
    )
    parser.add_argument("--out", type=Path, default=Path("dits_adapter/pretrained"), help="where adapters go")
    args = parser.parse_args()
    encoder = VideoEncoder.from_pretrained("demo-clip")
    train, validation = (embed_split(split, args.root, encoder) for split in ("train", "val"))

    def judge(name: str, adapter: Adapter) -> float:
        metrics = RetrievalMetrics.from_ranks(evaluate(adapter, validation))
        print(
            f"{name:20} R@1 {metrics.r1:5.1f}  R@5 {metrics.r5:5.1f}  "
            f"R@10 {metrics.r10:5.1f}  MRR {metrics.mrr:.3f}"
        )
        return metrics.mrr

    def save(name: str, recipe: Recipe, adapter: Adapter) -> None:
        facts = {
            "dataset": DATASET,
            "recipe": recipe.model_dump(mode="json"),
            "videos": len(train.video),
            "texts": len(train),
            "command": "python -m benchmarks.clips.train_adapters",
        }
        metrics = {"generated clips, val split": describe(evaluate(adapter, validation), validation.labels)}
        calibration = calibrate(adapter, validation)
        Artifact(adapter, train.space, facts, metrics, calibration).save(args.out / name)

    judge("plain CLIP", fit(Recipe(adapter="identity"), train, validation)[0])
    linear = {}
    for name in LINEAR:
        recipe = Recipe(adapter=name, training=TrainingConfig(learning_rate=LEARNING_RATES))
        adapter = fit(recipe, train, validation)[0]
        linear[name] = (judge(name, adapter), recipe, adapter)
    save("demo-linear", *max(linear.values(), key=lambda row: row[0])[1:])
    adapter = fit(PRESETS["best"], train, validation)[0]
    judge("DITS", adapter)
    save("demo-dits", PRESETS["best"], adapter)


if __name__ == "__main__":
    main()
