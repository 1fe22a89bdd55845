"""Time and memory of a step that trains CLIP along: `python -m benchmarks.joint_step --device cuda --bf16`.

Without `--encoder` a random CLIP of ViT-B/32's shape is measured, with random frames: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.costs import process_mib
from dits_adapter._progress import progress_bar
from dits_adapter.cli import guarded
from dits_adapter.encoders._torch import pick_device
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.training.config import JOINT_PRESETS, JointRecipe
from dits_adapter.training.joint._clips import ClipLoader, read_clip
from dits_adapter.training.joint._model import JointModel, initial_model, load_trainable
from dits_adapter.training.joint._trainer import collate, joint_optimizer
from dits_adapter.training.joint.captions import Captions

REPEATS = 3
"""Timed steps, after one that is not timed."""


@dataclass(frozen=True)
class StepCost:
    """Cost of joint training on this machine.

    Attributes:
        step: seconds of a step on one batch: forward, backward and optimizer.
        embed: seconds to embed a clip without gradients.
        decode: seconds to decode a clip, on one core.
        process_mib: greatest memory of the process, in MiB.
        gpu_mib: greatest memory of the graphics card, in MiB; None without one.
    """

    step: float
    embed: float
    decode: float
    process_mib: float
    gpu_mib: float | None

    def seconds(self, recipe: JointRecipe, *, pairs: int, videos: int, validation: int, cores: int) -> float:
        """Estimate one joint training.

        Args:
            recipe: the recipe.
            pairs: training pairs.
            videos: videos of these.
            validation: videos that choose the checkpoint.
            cores: processors that decode.
        """
        steps = recipe.epochs * (pairs // recipe.batch_size)
        decode = self.decode / max(1, min(cores, recipe.workers))
        waiting = steps * recipe.batch_size * decode
        computing = steps * self.step
        # A card computes while the processors decode; without one both want the same cores.
        training = computing + waiting if self.gpu_mib is None else max(computing, waiting)
        return training + (videos + validation) * decode + (recipe.epochs + 2) * validation * (decode + self.embed)


def measure(
    recipes: Sequence[JointRecipe],
    encoder: str | Path,
    captions: Captions | None = None,
    device: str | torch.device = "auto",
) -> list[StepCost]:
    """Measure the steps of recipes that differ in what follows CLIP: adapter, loss, rates.

    CLIP takes most of a step, so its part is measured with the first recipe alone.

    Args:
        recipes: the recipes.
        encoder: the CLIP: folder, bundled name or hub id.
        captions: pairs whose first clips are decoded; without them frames are random, and decoding costs nothing.
        device: a torch device or `"auto"`.
    """
    recipe, place = recipes[0], pick_device(device)
    torch.manual_seed(recipe.seed)
    clip = load_trainable(encoder, recipe)
    started = time.monotonic()
    pixels, texts = _clips(clip, recipe, captions)
    decode = 0.0 if captions is None else (time.monotonic() - started) / len(pixels)
    rows = torch.arange(recipe.batch_size) % len(pixels)
    items = [
        {"text": texts[row % len(texts)], "video": number, "pixels": pixels[row]}
        for number, row in enumerate(rows.tolist())
    ]
    batch = {name: tensor.to(place) for name, tensor in collate(clip.texts, items).items()}
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = _placed(clip, recipe, place)
    step = _seconds(partial(_step, model, joint_optimizer(model, recipe), batch, recipe), place)
    embed = _seconds(partial(_embed, model, batch["pixels"], recipe), place) / recipe.batch_size
    gpu = torch.cuda.max_memory_allocated() / 1024**2 if place.type == "cuda" else None
    cost = StepCost(step, embed, decode, process_mib(), gpu)
    if len(recipes) == 1:
        return [cost]
    heads = [
        _head(_placed(clip, other, place), other, place)
        for other in progress_bar(recipes, desc="measuring", unit="row")
    ]
    return [replace(cost, step=cost.step + head - heads[0]) for head in heads]


def _placed(clip: DualEncoder, recipe: JointRecipe, place: torch.device) -> JointModel:
    model = initial_model(clip, recipe).to(place)
    model.adapter.noise = torch.Generator(place).manual_seed(recipe.seed)
    return model


def _head(model: JointModel, recipe: JointRecipe, place: torch.device) -> float:
    """Return the seconds of a step on random embeddings: what follows CLIP."""
    width, batch = model.adapter.width, recipe.batch_size
    text = torch.randn(batch, width, device=place, requires_grad=True)
    frames = torch.randn(batch, recipe.frames, width, device=place, requires_grad=True)
    video = torch.arange(batch, device=place)

    def step() -> None:
        model.train()
        with torch.autocast(place.type, torch.bfloat16, enabled=recipe.bf16):
            loss = model.contrast(text, frames, video)
        loss.backward()

    return _seconds(step, place)


def _clips(clip: DualEncoder, recipe: JointRecipe, captions: Captions | None) -> tuple[Tensor, Sequence[str]]:
    """Return pixels (n, f, …) of up to a batch of clips, and texts."""
    if captions is None:
        frame = clip.frames([torch.zeros(clip.image_size, clip.image_size, 3, dtype=torch.uint8).numpy()])[0]
        return torch.randn(1, recipe.frames, *frame.shape), ["a dog runs over a meadow and jumps into a river"]
    load = ClipLoader(recipe.frames, clip.frames, partial(read_clip, limit=recipe.limit))
    videos = captions.videos[: recipe.batch_size]
    return torch.stack([load(video) for video in videos]), captions.texts


def _step(
    model: JointModel, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], recipe: JointRecipe
) -> None:
    model.train()
    with torch.autocast(batch["pixels"].device.type, torch.bfloat16, enabled=recipe.bf16):
        loss = model(**batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    optimizer.step()
    optimizer.zero_grad()


@torch.inference_mode()
def _embed(model: JointModel, pixels: Tensor, recipe: JointRecipe) -> None:
    model.eval()
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=recipe.bf16):
        model.embed_clips(pixels)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a call, after one that is not timed."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.monotonic()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.monotonic() - started)
    return sorted(times[1:])[REPEATS // 2]


def save_vit_b_32(folder: Path) -> Path:
    """Save a random CLIP of ViT-B/32's shape, with the bundled CLIP's tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    small = load_trainable("demo-clip", JointRecipe())
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    small.texts.tokenizer.save_pretrained(folder)
    type(small.frames.image_processor)().save_pretrained(folder)
    return folder


@guarded("benchmarks.joint_step")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the cost of a step; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint_step", description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", metavar="ID", help="CLIP (default: a random one of ViT-B/32's shape)")
    parser.add_argument("--batch", type=int, default=32, help="pairs a step (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 (autocast)")
    parser.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")
    args = parser.parse_args(argv)
    recipe = JOINT_PRESETS["paper"].model_copy(update={"batch_size": args.batch, "bf16": args.bf16})
    with tempfile.TemporaryDirectory() as scratch:
        cost = measure([recipe], args.encoder or save_vit_b_32(Path(scratch)), device=args.device)[0]
    card = "" if cost.gpu_mib is None else f", {cost.gpu_mib:,.0f} MiB of the graphics card"
    hours = 5 * (180_000 // args.batch) * cost.step / 3600
    print(
        f"a step of {args.batch} pairs of {recipe.frames} frames: {cost.step:.3f} s, {cost.process_mib:,.0f} MiB "
        f"of the process{card}; 5 epochs of MSR-VTT's 180,000 pairs, decoding aside: {hours:,.1f} h (the paper, "
        "on one RTX 3090: 14.90 h, 20,950 MB)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
