"""X-Pool (Gorti et al., CVPR 2022): a video's frames pooled under the query that searches it.

The pooled vector depends on the text, so it cannot be stored: X-Pool trains the encoder and re-ranks the hits of
an index of query-independent vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dits_adapter._reprs import short_repr
from dits_adapter.adapters.base import Adapter
from dits_adapter.errors import InputError
from dits_adapter.vectors import check_vectors

__all__ = ["XPool", "XPoolReranker", "XPoolScores", "xpool_scores"]

_TILE = 64
"""Texts and videos that are pooled at a time: 8 MiB a tensor at d = 512."""


class XPool(nn.Module):
    """Attention of a text over the frames of a video, then two layer norms: 1,316,352 parameters at d = 512.

    All linear maps start as the identity with zero bias: an untrained head takes the mean of the frames, weighted
    by their likeness to the text, up to layer norms. Parameter names are those of the released code.

    Args:
        width: dimension d of the embeddings.
        dropout: share of the linear branch that is dropped in training (0.3 in X-Pool).
    """

    def __init__(self, width: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.linear_proj = nn.Linear(width, width)
        self.layer_norm1 = nn.LayerNorm(width)
        self.layer_norm2 = nn.LayerNorm(width)
        self.layer_norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj, self.linear_proj):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, text: Tensor, frames: Tensor) -> Tensor:
        """Pool every video under every text.

        Args:
            text: plain text embeddings, (n, d), of any norm.
            frames: frame embeddings, (m, f, d), of any norm.

        Returns:
            Row i, column j is video j under text i, (n, m, d); not normalized.
        """
        text, frames = self.layer_norm1(text), self.layer_norm1(frames)
        # The weights of a video's frames sum to 1, so `out_proj`, affine, may as well see each frame before they
        # are summed: m · f rows instead of n · m.
        values = self.out_proj(self.v_proj(frames))
        logits = torch.einsum("nd,mfd->nmf", self.q_proj(text), self.k_proj(frames)) / math.sqrt(text.shape[1])
        attended = self.layer_norm2(torch.einsum("nmf,mfd->nmd", logits.softmax(dim=2), values))
        return self.layer_norm3(attended + self.dropout(self.linear_proj(attended)))

    def similarity(self, queries: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        """Return the cosines of queries and videos, each video pooled under the query's text.

        Args:
            queries: adapted texts, (n, d).
            text: the plain text embedding of each query, (n, d), under which frames are pooled.
            frames: frame embeddings, (m, f, d).

        Returns:
            (n, m) in −1 … 1.
        """
        # Not a matrix product: mixed precision would round the cosines, and the temperature blow the rounding up.
        pooled = self(text, frames).to(text.dtype)
        return F.cosine_similarity(queries.to(text.dtype)[:, None], pooled, dim=2)


class XPoolReranker:
    """Re-ranker of a query's segments by their frames, for `SearchRequest.rerank`.

    Args:
        xpool: the head.
        query: the adapted text, (d,).
        text: the plain text embedding, (d,), under which frames are pooled.
    """

    def __init__(self, xpool: XPool, query: NDArray[np.floating], text: NDArray[np.floating]) -> None:
        weight = xpool.q_proj.weight
        self._xpool = xpool.eval()
        self._query, self._text = (torch.as_tensor(x).to(weight)[None] for x in (query, text))

    def __repr__(self) -> str:
        return short_repr(self, width=self._query.shape[-1])

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
        """Return the cosines (m,) of the query with m segments, (frames, d) each, pooled under its text."""
        scores = np.empty(len(frames), np.float32)
        rows_of: dict[int, list[int]] = {}
        for row, segment in enumerate(frames):  # a batch has one number of frames
            rows_of.setdefault(len(segment), []).append(row)
        for rows in rows_of.values():
            stacked = torch.as_tensor(np.stack([frames[row] for row in rows])).to(self._query)
            scores[rows] = self._xpool.similarity(self._query, self._text, stacked)[0].cpu().numpy()
        return scores


class XPoolScores:
    """Score matrix of texts and videos under X-Pool, for `dits_adapter.ranks`.

    Blocks of rows are computed when they are asked for, a tile at a time: neither all pooled vectors nor all
    scores are ever in memory. A score depends on its text and its video alone.

    Args:
        xpool: the head.
        queries: adapted texts, (n, d).
        text: the plain text embedding of each query, (n, d).
        frames: frame embeddings, (m, f, d).

    Raises:
        InputError: shapes that do not fit, or NaN or infinite values.
    """

    def __init__(
        self,
        xpool: XPool,
        queries: NDArray[np.floating] | Tensor,
        text: NDArray[np.floating] | Tensor,
        frames: NDArray[np.floating] | Tensor,
    ) -> None:
        weight = xpool.q_proj.weight
        self._xpool = xpool.eval()
        self._queries, self._text, self._frames = (torch.as_tensor(x).to(weight) for x in (queries, text, frames))
        if self._frames.ndim != 3:
            raise InputError(f"expected frames of shape (videos, frames, d), got {tuple(self._frames.shape)}.")
        for vectors in (self._queries, self._text, self._frames.flatten(0, 1)):
            check_vectors(vectors, weight.shape[0])
        if len(self._queries) != len(self._text):
            raise InputError(f"{len(self._queries)} queries for {len(self._text)} texts; each needs its own.")

    def __repr__(self) -> str:
        return short_repr(self, shape=self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, m)."""
        return len(self._text), len(self._frames)

    @torch.inference_mode()
    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        strips = zip(self._queries[rows].split(_TILE), self._text[rows].split(_TILE), strict=True)
        tiles = [
            [self._tile(queries, text, frames) for frames in self._frames.split(_TILE)] for queries, text in strips
        ]
        scores: NDArray[np.float32] = torch.cat([torch.cat(strip, dim=1) for strip in tiles]).cpu().numpy()
        return scores

    def _tile(self, queries: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        return self._xpool.similarity(queries, text, frames)


class _PairScores(XPoolScores):
    """Score matrix of an adapter that runs on every pair of a text and a pooled video."""

    def __init__(
        self, xpool: XPool, adapter: Adapter, text: NDArray[np.floating], frames: NDArray[np.floating] | Tensor
    ) -> None:
        super().__init__(xpool, text, text, frames)
        self._adapter = adapter

    def _tile(self, queries: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        return self._adapter.similarity(text, self._xpool(text, frames))


def xpool_scores(
    xpool: XPool, adapter: Adapter, text: NDArray[np.floating], frames: NDArray[np.floating] | Tensor
) -> XPoolScores:
    """Return the score matrix of an adapter's texts and videos whose frames are pooled under each text.

    Args:
        xpool: the head.
        adapter: adapter in the form for inference; one that `needs_video` runs on every pair.
        text: plain text embeddings, (n, d).
        frames: frame embeddings, (m, f, d).

    Raises:
        InputError: as for `XPoolScores`.
    """
    if adapter.needs_video:
        return _PairScores(xpool, adapter, text, frames)
    return XPoolScores(xpool, adapter.adapt(text), text, frames)
