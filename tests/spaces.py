"""Embedding spaces without an encoder behind them."""

from __future__ import annotations

import hashlib

import numpy as np

from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace


def made_up_space(
    width: int, *, seed: int = 0, frames: int | None = 12, text_width: int | None = None
) -> EmbeddingSpace:
    """Return a space with random canaries; with `text_width` its texts are of an encoder of their own."""
    rng = np.random.default_rng(seed)

    def side(size: int, rows: int, kind: str) -> dict[str, object]:
        canaries = rng.normal(size=(rows, size))
        canaries = np.round(canaries / np.linalg.norm(canaries, axis=1, keepdims=True), 6)
        digest = hashlib.sha256(f"{seed} {size} {kind}".encode()).hexdigest()
        name = f"{kind}-{seed}" if text_width else f"fake-{seed}"
        return {"encoder": name, "weights_sha256": digest, "width": size, "canaries": canaries.tolist()}

    text = TextSide(**side(text_width or width, 4, "text"))
    video = VideoSide(**side(width, 2, "video"), frames=frames)
    return EmbeddingSpace(text=text, video=video, shared=text_width is None)


def renamed(space: EmbeddingSpace, encoder: str) -> EmbeddingSpace:
    """Return a space whose encoder has another name."""
    sides = {side: getattr(space, side).model_copy(update={"encoder": encoder}) for side in ("text", "video")}
    return space.model_copy(update=sides)
