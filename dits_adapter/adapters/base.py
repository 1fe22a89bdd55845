"""The one protocol of everything that moves a text embedding to the video side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from dits_adapter.clip import check_vectors
from dits_adapter.errors import InputError

Vectors = TypeVar("Vectors", np.ndarray, Tensor)


def interpolate_on_sphere(start: Tensor, end: Tensor, strength: float) -> Tensor:
    """Walk the great circle from `start` to `end`, both (n, d) unit vectors: 0 is the start, 1 the end.

    The direction is the part of `end` orthogonal to `start`, which stays accurate for nearly equal vectors.
    """
    cosine = (start * end).sum(dim=1, keepdim=True)
    orthogonal = end - cosine * start
    sine = orthogonal.norm(dim=1, keepdim=True)
    angle = strength * torch.atan2(sine, cosine)
    direction = orthogonal / sine.clamp_min(torch.finfo(end.dtype).tiny)
    return F.normalize(angle.cos() * start + angle.sin() * direction, dim=1)


class Adapter(nn.Module, ABC):
    """Maps text embeddings towards video embeddings of the same space.

    A subclass is its config, its weights and `forward`; both are all that an artefact saves.

    Attributes:
        kind: the name under which artefacts and `ADAPTERS` know the class.
        Config: class of the definition, a pydantic model with a field `width`; all that `__init__` needs.
        config: this adapter's definition.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    config: BaseModel

    @property
    def width(self) -> int:
        """Dimension d of the embeddings."""
        return int(self.config.width)  # type: ignore[attr-defined]

    @abstractmethod
    def forward(self, text: Tensor) -> Tensor:
        """Map text embeddings (n, d) to adapted ones (n, d), differentiably; norms are free."""

    @property
    def is_plain(self) -> bool:
        """True where the adapter moves nothing by definition, so that `adapt` returns its input."""
        return False

    def for_inference(self) -> Adapter:
        """Return the form that queries should run on: equal results, less work."""
        return self.eval()

    @torch.inference_mode()
    def adapt(self, vectors: Vectors, *, strength: float = 1.0) -> Vectors:
        """Adapt embeddings that somebody already has.

        Args:
            vectors: text embeddings, (n, d), float16, bfloat16, float32 or float64, array or tensor.
            strength: how far to go on the sphere, 0 (plain CLIP) to 1 (fully adapted).

        Returns:
            Unit vectors (n, d) of the type, dtype and device of the input. With strength 0, or an adapter that
            `is_plain` (DITS with T' = 0), the input itself, bit for bit and not normalised.

        Raises:
            InputError: wrong shape or width, a NaN, infinite or zero row, or a strength outside 0 … 1.
        """
        check_vectors(vectors, self.width)
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}; it goes from 0 (plain CLIP) to 1 (fully adapted).")
        if strength == 0 or self.is_plain:
            return vectors
        given = torch.as_tensor(vectors)
        device = next(iter(self.state_dict().values()), given).device
        text = given.to(device)
        computed = text if text.dtype == torch.float64 else text.float()
        plain = F.normalize(computed, dim=1)
        zero = (plain.norm(dim=1) == 0).nonzero()
        if len(zero):
            raise InputError(f"row {int(zero[0])} is the zero vector; it has no direction to adapt.")
        adapted = F.normalize(self(computed), dim=1)
        if strength < 1:
            adapted = interpolate_on_sphere(plain, adapted, strength)
        result = adapted.to(given.device, given.dtype)
        return result.numpy() if isinstance(vectors, np.ndarray) else result
