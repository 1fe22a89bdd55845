"""An encoder family without torch: counts of characters and mean colors, projected at random."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from dits_adapter.encoders import EncoderFamily, EncoderSource
from dits_adapter.vectors import EmbeddedClips


@dataclass(frozen=True)
class RandomProjection:
    name: str
    revision: str | None
    text: np.ndarray
    color: np.ndarray
    max_tokens: int = 20
    text_cleaning: str = "none"
    prompt: str = ""
    preprocessing: str = "mean color"
    clip_frames: int | None = None

    @property
    def width(self):
        return self.text.shape[1]

    @property
    def text_digest(self):
        return hashlib.sha256(self.text.tobytes()).hexdigest()

    @property
    def video_digest(self):
        return hashlib.sha256(self.color.tobytes()).hexdigest()

    def count_tokens(self, texts):
        return [len(text) for text in texts]

    def embed_texts(self, texts, batch_size=64):
        counts = [np.bincount(bytearray(f"^{t[: self.max_tokens]}".encode()), minlength=256) for t in texts]
        return np.asarray(counts, np.float32).reshape(-1, 256) @ self.text

    def preprocess(self, frames):
        return np.stack([frame.mean(axis=(0, 1)) / 255 for frame in frames]).astype(np.float32)

    def embed(self, clips, batch_size=96):
        return EmbeddedClips(frames=np.stack(clips) @ self.color)


def save(folder: Path, *, seed: int = 0, width: int = 32) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": FAMILY.model_type}))
    weights = {name: rng.normal(size=(n, width)).astype(np.float32) for name, n in (("text", 256), ("color", 3))}
    save_file(weights, folder / "model.safetensors")
    return folder


def _load(source: EncoderSource, device: object) -> RandomProjection:
    return RandomProjection(source.name, source.revision, **load_file(source.folder / "model.safetensors"))


FAMILY = EncoderFamily("random-projection", _load)
