"""Backends: the computation behind `DITSQueryEncoder`, on PyTorch or on ONNX Runtime without it."""

from __future__ import annotations

from typing import Protocol

from dits_adapter.errors import InputError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.sides import TextSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import FloatArray

__all__ = ["Backend", "unloadable"]


class Backend(Protocol):
    """Text encoder and adapter. Its methods may be called from several threads, and clean texts as the space says.

    Attributes:
        space: the embedding space of the adapter.
        calibration: calibration of the adapter's scores at strength 1, if it was calibrated.
    """

    space: EmbeddingSpace
    calibration: Calibration | None

    def load(self) -> TextSide:
        """Load the text encoder, once, and describe the texts that it really embeds.

        Raises:
            ArtifactError: the text encoder cannot be loaded.
        """

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read (77 in CLIP); the rest is cut off."""

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""

    def embed(self, texts: list[str], *, batch_size: int) -> FloatArray:
        """Embed texts, not adapted and not normalized: (n, d)."""

    def encode(self, texts: list[str], *, strength: float, batch_size: int) -> FloatArray:
        """Embed texts and adapt them at a strength of 0 (not at all) to 1: unit vectors (n, d)."""

    def adapt(self, vectors: FloatArray, *, strength: float) -> FloatArray:
        """Adapt text embeddings (n, d); see `Adapter.adapt`."""

    def trajectory(self, vectors: FloatArray) -> FloatArray:
        """Return the sampler's path for text embeddings (n, d): (T' + 1, n, d), not normalized.

        Raises:
            InputError: there is none.
        """


def unloadable(texts: TextSide) -> InputError:
    """Return the error of an adapter that is given texts, whose encoder is not at hand."""
    return InputError(
        f"the adapter takes vectors of {texts}, an encoder that cannot be loaded here. Embed the texts with it, "
        "and give their vectors to DITSQueryEncoder.adapt, or to search as --vectors FILE.npy."
    )
