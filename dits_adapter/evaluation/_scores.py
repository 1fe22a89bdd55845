"""Score matrix of an adapter: cosines of adapted texts with all videos."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter.adapters.base import Adapter
from dits_adapter.evaluation.metrics import DotProducts, Scores
from dits_adapter.vectors import check_vectors, unit

__all__ = ["cosine_scores"]

_BLOCK = 4096
"""Texts that an adapter takes at a time."""


def cosine_scores(adapter: Adapter, text: NDArray[np.floating], video: NDArray[np.floating]) -> Scores:
    """Return the cosines of adapted texts (n, d) and videos (m, d) as a matrix (n, m), computed block by block.

    An adapter that `needs_video` runs on every pair, a tile at a time.

    Args:
        adapter: adapter in the form for inference.
        text: text embeddings, (n, d), as the encoder gives them.
        video: video vectors, (m, d), of any norm.

    Raises:
        InputError: wrong shapes, NaN or infinite values, or vectors without direction.
    """
    if adapter.needs_video:
        return _PairScores(adapter, text, video)
    starts = range(0, max(1, len(text)), _BLOCK)
    adapted = np.concatenate([adapter.adapt(text[start : start + _BLOCK]) for start in starts])
    return DotProducts(unit(adapted), unit(video))


class _PairScores:
    """Score matrix of an adapter that `needs_video`; it runs on every pair, a tile at a time."""

    _TILE: ClassVar[int] = 64

    def __init__(self, adapter: Adapter, text: NDArray[np.floating], video: NDArray[np.floating]) -> None:
        self._adapter = adapter
        weight = next(adapter.parameters())
        self._text, self._video = (torch.as_tensor(x).to(weight) for x in (text, video))
        for vectors in (self._text, self._video):
            check_vectors(vectors, adapter.width)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._text), len(self._video)

    @torch.inference_mode()
    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        tiles = [
            [self._adapter.similarity(text, video) for video in self._video.split(self._TILE)]
            for text in self._text[rows].split(self._TILE)
        ]
        scores: NDArray[np.float32] = torch.cat([torch.cat(strip, dim=1) for strip in tiles]).float().cpu().numpy()
        return scores
