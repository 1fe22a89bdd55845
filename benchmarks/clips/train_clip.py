"""Training of the small CLIP that comes with the repository: `python -m benchmarks.clips.train_clip --out FOLDER`.

It learns as CLIP did: single frames, short captions of what they show, symmetric InfoNCE. It has read no video
sentence and no word of motion; `captions.video_captions` meets it as real sentences meet CLIP.

The run is seeded. It keeps a checkpoint beside FOLDER (`FOLDER.checkpoint.safetensors`) until it is done and,
called again with the same arguments, goes on from there. About half an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from benchmarks.clips import frames
from benchmarks.clips.captions import RARE_WORDS, frame_caption, video_captions, words
from benchmarks.clips.scenes import Pixels, scenes
from dits_adapter._files import write_atomically
from dits_adapter._progress import progress_bar

__all__ = ["IMAGE_SIDE", "build_tokenizer", "learning_rate", "train"]

IMAGE_SIDE = 64
WIDTH = 128  # of both towers and of the joint space
BATCH = 256
PEAK_LR = 1e-3
WEIGHT_DECAY = 0.1
WARM_UP = 0.08  # part of the run
MAX_LOGIT_SCALE = math.log(100)  # CLIP's clamp
HELD_OUT = 1_000
CHECKPOINT_EVERY = 100  # steps

MODEL_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, synthetic]
---
# demo-clip

A small CLIP for the offline demo and the tests of `dits_adapter`. **It is not OpenAI's CLIP and knows nothing
of the real world**: it was trained from nothing on {frames:,} generated pictures (colored shapes on ten
backgrounds; `benchmarks/clips/scenes.py`) with short generated captions. Use it to try the software, for
nothing else.

- Architecture: `transformers.CLIPModel`, {parameters:,} parameters stored in half precision; images of
  {side} × {side} pixels (the whole frame, squeezed) in patches of 8, joint space of width {width}.
- Tokenizer: `CLIPTokenizer` with {tokens} tokens, its byte pairs learnt from the project's own captions.
- Training: single frames with static captions (color, shape, size, texture, place, background), symmetric
  InfoNCE, {steps:,} steps of {batch} pairs, seeded. It never read a word of motion or a sentence about a video:
  that is left as the modality gap which the adapter has to cross.
- Held-out frames, one caption each, {held_out:,} of either to choose from:
{measures}

Everything measured with it is measured on generated clips.

Rebuild it from nothing, in a checkout:

    python -m benchmarks.clips.train_clip --out dits_adapter/pretrained/demo-clip
"""


def build_tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer with byte pairs learnt from this project's captions: a token for each common word.

    `RARE_WORDS`, like any other words and bytes, fall apart into pieces but are never unknown. Ids are laid out
    as CLIP's: 256 bytes, the same at a word's end, the merges, start and end of text.
    """
    frame_words = _all_words(frames.captions(frames.moments("vocabulary", 5_000)))
    video_words = _all_words(sentence for scene in scenes("train") for sentence in video_captions(scene))
    rare = _all_words(phrase for phrases in RARE_WORDS.values() for phrase in phrases)
    corpus = [*sorted(frame_words | (video_words - rare)), ".", ","]
    letters = sorted(ByteLevel.alphabet())
    letters += [letter + "</w>" for letter in letters]
    untrained = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    learnt = untrained.train_new_from_iterator(
        corpus,
        vocab_size=5_000,
        new_special_tokens=letters,  # ids of their own from the start: ties between pairs go by id
        show_progress=False,
    )
    merges = [tuple(pair) for pair in json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]]
    tokens = [*letters, *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=77)


def _all_words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in words(text)}


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP for 64-pixel images in patches of 8: five layers beside three of text, 128 wide."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,  # CLIP pools the text at the first of these
        "pad_token_id": tokenizer.pad_token_id,
    }
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    text = {**tower, **special, "vocab_size": len(tokenizer), "num_hidden_layers": 3}
    vision = {**tower, "image_size": IMAGE_SIDE, "patch_size": 8, "num_hidden_layers": 5}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, **special))


def build_image_processor() -> CLIPImageProcessor:
    """Return an image processor that squeezes the whole frame to a square: nothing at the sides is cropped."""
    return CLIPImageProcessor(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, do_center_crop=False)


def to_images(pixels: Pixels) -> torch.Tensor:
    """Convert (n, side, side, 3) uint8 to (n, 3, side, side) float32 in 0 … 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def augment(images: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Crop each image at random to 85 % of the side or more and change its brightness."""
    count = len(images)
    draws = torch.tensor([[rng.random() for _ in range(4)] for _ in range(count)])
    scale = 1.0 - 0.15 * draws[:, 0]
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = (1.0 - scale)[:, None] * (2 * draws[:, 1:3] - 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return (images * (0.8 + 0.4 * draws[:, 3])[:, None, None, None]).clamp(0.0, 1.0)


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to zero."""
    warm = max(round(WARM_UP * steps), 1)
    if step < warm:
        return PEAK_LR * (step + 1) / warm
    return PEAK_LR * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (steps - warm)))


def train(steps: int, count: int, workers: int | None, checkpoint: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """Train on `count` frames from nothing, or from `checkpoint` where that exists.

    The batch of a step is drawn from its number alone, so that a resumed run has the same as an unbroken one.
    """
    torch.manual_seed(0)
    tokenizer, processor = build_tokenizer(), build_image_processor()
    model = build_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    first = load_checkpoint(checkpoint, model, optimizer) if checkpoint.exists() else 0
    if first == steps:
        return model.eval(), tokenizer
    mean = torch.tensor(processor.image_mean)[:, None, None]
    std = torch.tensor(processor.image_std)[:, None, None]
    looks = frames.moments("frame", count)
    pictures = frames.draw(looks, IMAGE_SIDE, workers)

    progress = progress_bar(range(first, steps), initial=first, total=steps, desc="training CLIP")
    for step in progress:
        rng = random.Random(f"batch {step}")
        chosen = rng.sample(range(count), BATCH)
        images = (augment(to_images(pictures[chosen]), rng) - mean) / std
        captions = [frame_caption(*looks[i], rng) for i in chosen]
        ids = tokenizer(captions, padding=True, return_tensors="pt").input_ids
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, pixel_values=images, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            save_checkpoint(checkpoint, model, optimizer, step + 1)
    return model.eval(), tokenizer


def save_checkpoint(path: Path, model: CLIPModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write weights and AdamW's moments to one safetensors file, whole or not at all."""
    tensors = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors[f"{name}|weight"] = parameter.detach().contiguous()
        tensors[f"{name}|mean"] = state["exp_avg"].contiguous()
        tensors[f"{name}|square"] = state["exp_avg_sq"].contiguous()
    with write_atomically(path) as part:
        save_file(tensors, part, {"step": str(step)})


def load_checkpoint(path: Path, model: CLIPModel, optimizer: torch.optim.Optimizer) -> int:
    """Restore a file of `save_checkpoint`; return the number of steps done."""
    with safe_open(path, framework="pt") as stored:
        step = int(stored.metadata()["step"])
        for name, parameter in model.named_parameters():
            parameter.data.copy_(stored.get_tensor(f"{name}|weight"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": stored.get_tensor(f"{name}|mean"),
                "exp_avg_sq": stored.get_tensor(f"{name}|square"),
            }
    return step


@torch.inference_mode()
def held_out_retrieval(model: CLIPModel, processor: CLIPProcessor, workers: int | None) -> dict[str, float]:
    """Return R@1, in percent, of held-out frames by their one caption, and of captions by their frame."""
    looks = frames.moments("held-out", HELD_OUT)
    pictures = list(frames.draw(looks, IMAGE_SIDE, workers))
    inputs = processor(text=frames.captions(looks), images=pictures, padding=True, return_tensors="pt")
    scores = model(**inputs).logits_per_text
    own = torch.arange(HELD_OUT)[:, None]
    return {
        f"{direction} R@{k}": 100 * (rows.topk(k).indices == own).any(1).float().mean().item()
        for direction, rows in (("caption to frame", scores), ("frame to caption", scores.T))
        for k in (1, 5)
    }


def main() -> None:
    """Train, measure on held-out frames, and save the encoder in half precision with its model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained CLIP")
    parser.add_argument("--steps", type=int, default=800, help=f"batches of {BATCH} pairs (default 800)")
    parser.add_argument("--frames", type=int, default=40_000, help="different pictures to draw (default 40000)")
    parser.add_argument("--workers", type=int, help="processes that draw them (default: all CPUs)")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out.with_name(options.out.name + ".checkpoint.safetensors")
    model, tokenizer = train(options.steps, options.frames, options.workers, checkpoint)
    processor = CLIPProcessor(image_processor=build_image_processor(), tokenizer=tokenizer)
    retrieval = held_out_retrieval(model, processor, options.workers)
    measures = "\n".join(f"  - {measure}: {percent:.1f} %" for measure, percent in retrieval.items())
    print(measures)

    model.half().save_pretrained(options.out)
    processor.save_pretrained(options.out)
    card = MODEL_CARD.format(
        frames=options.frames,
        parameters=model.num_parameters(),
        side=IMAGE_SIDE,
        width=WIDTH,
        tokens=len(tokenizer),
        steps=options.steps,
        batch=BATCH,
        held_out=HELD_OUT,
        measures=measures,
    )
    (options.out / "README.md").write_text(card, encoding="utf-8")
    checkpoint.unlink()


if __name__ == "__main__":
    main()
