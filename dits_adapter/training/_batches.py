"""Batches of training pairs, with hard negatives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dits_adapter.training.config import TrainingConfig

__all__ = ["Batches", "nearest_videos"]

_NEIGHBORS = 10
"""Number of nearest videos from which the hard negatives of a video are drawn."""


_AMONG = 20_000
"""Videos among which neighbors are searched."""


def nearest_videos(video: Tensor, neighbors: int, chunk: int = 1024, among: int = _AMONG) -> Tensor:
    """Return the rows of the nearest other videos by cosine, (m, neighbors), for unit vectors (m, d).

    More than `among` videos are parted at random, and each is compared with those of its part: the nearest of so
    many are hard negatives too, and the time grows with m, not with its square.
    """
    order = torch.randperm(len(video), generator=torch.Generator().manual_seed(0))
    nearest = torch.empty(len(video), min(neighbors, len(video) - 1), dtype=torch.long, device=video.device)
    for part in order.to(video.device).tensor_split(-(-len(video) // among)):
        vectors = video[part]
        for start in range(0, len(part), chunk):
            similarity = vectors[start : start + chunk] @ vectors.T
            similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -torch.inf
            nearest[part[start : start + chunk]] = part[similarity.topk(nearest.shape[1]).indices]
    return nearest


class Batches:
    """Batches of pair rows; the order of an epoch follows from seed and epoch number, so runs can resume."""

    def __init__(self, labels: Tensor, video: Tensor, config: TrainingConfig) -> None:
        self._labels, self._config = labels.cpu(), config
        self._size = min(config.batch_size, len(labels))
        self._hard = int(config.hard_negatives * self._size)
        self.count = len(labels) // self._size
        if self._hard:
            self._near = nearest_videos(video, _NEIGHBORS).cpu()
            self._texts_of = torch.argsort(self._labels, stable=True)
            self._first = torch.searchsorted(self._labels[self._texts_of], torch.arange(len(video) + 1))

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the rows of each batch, (batch_size,); a last incomplete batch is left out."""
        random = torch.Generator().manual_seed(self._config.seed * 100_003 + number)
        order = torch.randperm(len(self._labels), generator=random)
        for rows in order[: self.count * self._size].split(self._size):
            yield torch.cat([rows[self._hard :], self._neighbors(rows[self._hard :], random)])

    def _neighbors(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """Draw the hard negatives of a batch: rows of texts of videos near those of `rows`."""
        if not self._hard:
            return rows[:0]
        seeds = self._labels[rows[torch.randint(len(rows), (self._hard,), generator=random)]]
        column = torch.randint(self._near.shape[1], (self._hard,), generator=random)
        video = self._near[seeds, column]
        first, count = self._first[video], self._first[video + 1] - self._first[video]
        place = first + (torch.rand(self._hard, generator=random) * count).long()
        texts = self._texts_of[place.clamp_max(len(self._texts_of) - 1)]
        return torch.where(count > 0, texts, rows[: self._hard])
