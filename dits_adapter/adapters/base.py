"""The one protocol of everything that moves a text embedding to the video side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import DotProducts, Scores
from dits_adapter.vectors import check_directions, check_vectors

Vectors = TypeVar("Vectors", np.ndarray, Tensor)


def interpolate_on_sphere(start: Tensor, end: Tensor, strength: float | Tensor) -> Tensor:
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

    A subclass is its config, its weights and `forward`; both are all that an artifact saves.

    Attributes:
        kind: the name under which artifacts and `ADAPTERS` know the class.
        Config: class of the definition, a pydantic model with a field `width`; all that `__init__` needs.
        config: this adapter's definition.
        noise: source of what is random in training; whoever trains sets it.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    config: BaseModel
    noise: torch.Generator | None = None

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

    @property
    def needs_video(self) -> bool:
        """True where the result depends on the video too, as in the paper's ablation of conditions (Table 6a).

        `forward` then takes the videos as well, (n, d), row by row. Such an adapter cannot search an index: each
        pair of a text and a video has a vector of its own.
        """
        return False

    def towards(self, text: Tensor, video: Tensor) -> Tensor:
        """Adapt texts (n, d) to be compared with videos (m, d): (n, d), or (n, m, d) for each pair its own."""
        if not self.needs_video:
            return self(text)
        n, m = len(text), len(video)
        return self(text.repeat_interleave(m, dim=0), video.repeat(n, 1)).unflatten(0, (n, m))

    def scores(self, text: NDArray[np.floating], video: NDArray[np.floating]) -> Scores:
        """Return the cosines of adapted texts (n, d) and videos (m, d), computed when a block is asked for."""
        if self.needs_video:
            return PairScores(self, text, video)
        norms = np.linalg.norm(video, axis=1, keepdims=True)
        return DotProducts(self.adapt(text), video / norms)

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
            `is_plain` (DITS with T' = 0), the input itself, bit for bit and not normalized.

        Raises:
            InputError: wrong shape or width, a NaN, infinite or zero row, a strength outside 0 … 1, or an adapter
                that `needs_video`.
        """
        if self.needs_video:
            raise InputError("this adapter depends on the video; it scores pairs (Adapter.scores), nothing else.")
        check_vectors(vectors, self.width)
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}; it goes from 0 (plain CLIP) to 1 (fully adapted).")
        if strength == 0 or self.is_plain:
            return vectors
        check_directions(vectors)
        given = torch.as_tensor(vectors)
        text = given.to(next(chain(self.parameters(), self.buffers()), given).device)
        computed = text if text.dtype == torch.float64 else text.float()
        adapted = F.normalize(self(computed), dim=1)
        if strength < 1:
            adapted = interpolate_on_sphere(F.normalize(computed, dim=1), adapted, strength)
        result = adapted.to(given.device, given.dtype)
        return result.numpy() if isinstance(vectors, np.ndarray) else result


def cosines(queries: Tensor, video: Tensor) -> Tensor:
    """Cosines (n, m) of videos (m, d) and what `Adapter.towards` returned for them, in float32 or better."""
    video = F.normalize(video, dim=1)
    queries = F.normalize(queries.to(video.dtype), dim=-1)
    return queries @ video.T if queries.ndim == 2 else (queries * video).sum(dim=2)


class PairScores:
    """The score matrix of an adapter that `needs_video`: it runs on every pair, a tile at a time.

    Args:
        adapter: the adapter, in eval mode.
        text: text embeddings, (n, d).
        video: video vectors, (m, d).

    Raises:
        InputError: wrong shapes, or NaN or infinite values.
    """

    TILE: ClassVar[int] = 64

    def __init__(self, adapter: Adapter, text: NDArray[np.floating], video: NDArray[np.floating]) -> None:
        self._adapter = adapter
        weight = next(adapter.parameters())
        self._text, self._video = (torch.as_tensor(x).to(weight) for x in (text, video))
        for vectors in (self._text, self._video):
            check_vectors(vectors, adapter.width)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return len(self._text), len(self._video)

    @torch.inference_mode()
    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        tiles = [
            [cosines(self._adapter.towards(text, video), video) for video in self._video.split(self.TILE)]
            for text in self._text[rows].split(self.TILE)
        ]
        scores: NDArray[np.float32] = torch.cat([torch.cat(strip, dim=1) for strip in tiles]).float().cpu().numpy()
        return scores
