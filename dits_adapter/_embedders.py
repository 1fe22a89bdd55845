"""Parts of encoders that embedding spaces are described by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dits_adapter.texts import TextCleaning
from dits_adapter.vectors import EmbeddedClips, FloatArray

__all__ = ["Embedder", "TextEmbedder", "VideoEmbedder"]


class _Named(Protocol):
    """Part of an encoder that tells whose vectors it makes."""

    @property
    def name(self) -> str:
        """Hub id, or name of the folder."""

    @property
    def revision(self) -> str | None:
        """Revision of the hub; None in a folder."""

    @property
    def width(self) -> int:
        """Dimension d of the vectors."""


class TextEmbedder(_Named, Protocol):
    """Part of an encoder that describes and embeds texts."""

    @property
    def text_digest(self) -> str:
        """SHA-256 of the weights that texts go through, 64 hex digits."""

    @property
    def text_cleaning(self) -> TextCleaning:
        """Cleaning that `embed_texts` does first (`dits_adapter.texts`)."""

    @property
    def prompt(self) -> str:
        """Words that `embed_texts` puts before each text; empty for none."""

    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts, `batch_size` a forward pass: (n, d) float32, not normalized."""


class VideoEmbedder(_Named, Protocol):
    """Part of an encoder that describes and embeds clips."""

    @property
    def video_digest(self) -> str:
        """SHA-256 of the weights that frames go through, 64 hex digits."""

    @property
    def preprocessing(self) -> str:
        """Name of what `preprocess` does, another one for other settings; for people."""

    @property
    def clip_frames(self) -> int | None:
        """Number of frames that each clip of `embed` must have; None for any number."""

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Turn (h, w, 3) RGB frames, each for itself, into the input of `embed`: (n, …) float32."""

    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed clips of equally many preprocessed frames, (f, …) each.

        Args:
            clips: the clips.
            batch_size: frames a forward pass.
        """


class Embedder(TextEmbedder, VideoEmbedder, Protocol):
    """Part of an encoder that describes its space; `dits_adapter.encoders.Encoder` is the whole."""
