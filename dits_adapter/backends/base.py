"""What computes behind `DITSQueryEncoder`: PyTorch, or ONNX Runtime without it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.space import EmbeddingSpace

Array = NDArray[np.float32]


class Backend(Protocol):
    """A text tower and an adapter. Its methods may be called from several threads.

    Attributes:
        space: the embedding space of the adapter.
        calibration: of the adapter's scores at strength 1, if it was calibrated.
    """

    space: EmbeddingSpace
    calibration: Calibration | None

    def load(self) -> EmbeddingSpace:
        """Load the text tower, once, and return the space that it really embeds into.

        Raises:
            ArtifactError: it cannot be loaded.
        """

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the tower reads (77 in CLIP); the rest is cut off."""

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""

    def encode(self, texts: list[str], *, adapted: bool, batch_size: int) -> Array:
        """Encode texts as queries, or as plain CLIP: unit vectors (n, d)."""

    def adapt(self, vectors: Array, *, strength: float) -> Array:
        """Adapt text embeddings (n, d); see `Adapter.adapt`."""

    def trajectory(self, vectors: Array) -> Array:
        """Return the sampler's path for text embeddings (n, d): (T' + 1, n, d), not normalized.

        Raises:
            InputError: there is none.
        """
