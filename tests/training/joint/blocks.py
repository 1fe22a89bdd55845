"""Videos of colored blocks as arrays, and joint training on them."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file

from dits_adapter.adapters import DITSAdapter
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint._model import JointModel
from dits_adapter.training.joint.captions import Captions
from dits_adapter.training.joint.train import train_joint
from dits_adapter.xpool import XPool

WORDS = (
    "red",
    "green",
    "blue",
    "star",
    "ring",
    "dog",
    "cat",
    "meadow",
    "river",
    "sky",
    "runs",
    "jumps",
    "old",
    "big",
)
FAST = {
    "frames": "2",
    "batch_size": "8",
    "workers": "0",
    "sampler.depth": "1",
    "learning_rate": "1e-3",
    "clip_learning_rate": "1e-3",
}


def recipe(**settings):
    dotted = {name.replace("__", "."): str(value) for name, value in settings.items()}
    return JointRecipe.read("deterministic", settings={**FAST, **dotted})


class Clips:
    """Videos as arrays: each three frames of colored blocks, no two alike."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 256, (count, 1, 4, 5, 3)) + rng.integers(-20, 20, (count, 3, 4, 5, 3))
        self.frames = np.kron(blocks.clip(0, 255), np.ones((1, 1, 8, 8, 1))).astype(np.uint8)
        sentences = [" ".join(rng.choice(WORDS, 5)) for _ in range(count)]
        self.captions = Captions.of((str(i), sentence) for i, sentence in enumerate(sentences))
        self.reads = 0

    def read(self, video, frames, transform):
        self.reads += 1
        return np.stack([transform(frame) for frame in self.frames[int(video)][:frames]])


def train(clips, out, tiny_clip, *, read=None, held_out=None, **settings):
    return train_joint(
        clips.captions,
        recipe(**settings),
        out,
        encoder=tiny_clip,
        dataset="blocks",
        validation=held_out,
        read=read or clips.read,
        progress=False,
    ).written


def weights(artifact):
    return {
        f"{path.relative_to(artifact)} {name}": tensor
        for path in sorted(artifact.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def small_model(clip) -> JointModel:
    torch.manual_seed(0)
    model = JointModel(clip, XPool(32), DITSAdapter(SamplerConfig(width=32, depth=1, steps=2, input="raw")))
    for parameter in [*model.xpool.parameters(), *model.adapter.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return model.double().requires_grad_(True).eval()  # without dropout and noise


def small_batch(clip) -> dict[str, torch.Tensor]:
    """Eight pairs in double precision; videos 3 and 5 occur twice, in different halves and in one."""
    generator = torch.Generator().manual_seed(0)
    tokens = clip.texts([" ".join(WORDS[i : i + 3]) for i in range(8)])
    pixels = torch.randn(8, 3, 3, 32, 32, generator=generator, dtype=torch.float64)
    return {**tokens, "pixels": pixels, "video": torch.tensor([0, 3, 1, 2, 3, 5, 4, 5])}
