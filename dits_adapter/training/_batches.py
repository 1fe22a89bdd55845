"""Batches of training pairs, read where they lie, with hard negatives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dits_adapter.adapters import Rows
from dits_adapter.data.pairs import Pairs
from dits_adapter.training._processes import whole_shares
from dits_adapter.training.config import TrainingConfig

__all__ = ["Batch", "Batches", "blocks", "nearest_videos"]

_NEIGHBORS = 10
"""Number of nearest videos from which the hard negatives of a video are drawn."""

_AMONG = 20_000
"""Videos among which neighbors are searched."""

_BLOCK = 8192
"""Vectors in memory at a time."""

_READ = 16_384
"""Pairs that are read at once, of several batches: each shard of a cache is then mapped for many rows, not for one
or two."""


class Batch(NamedTuple):
    """Batch of pairs on the device: texts (b, d), their videos (b, d), unit norm, and the videos' numbers (b,).

    Videos that are no wrong answers for each other (`Groups.alike`) have one number.
    """

    text: Tensor
    video: Tensor
    labels: Tensor


def blocks(vectors: Rows) -> Iterator[NDArray[np.float32]]:
    """Yield vectors (n, d) some thousand rows at a time."""
    for start in range(0, len(vectors), _BLOCK):
        yield vectors[start : start + _BLOCK]


def nearest_videos(
    video: Rows, neighbors: int, device: torch.device, chunk: int = 1024, among: int = _AMONG
) -> Tensor:
    """Return the rows of the nearest other videos by cosine, (m, neighbors), for vectors (m, d).

    More than `among` videos are parted at random, and each is compared with those of its part: the nearest of so
    many are hard negatives too, and the time grows with m, not with its square.
    """
    order = torch.randperm(len(video), generator=torch.Generator().manual_seed(0))
    nearest = torch.empty(len(video), min(neighbors, len(video) - 1), dtype=torch.long)
    for part in order.tensor_split(-(-len(video) // among)):
        vectors = _unit(torch.from_numpy(video[part.numpy()]), device)
        for start in range(0, len(part), chunk):
            similarity = vectors[start : start + chunk] @ vectors.T
            similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -torch.inf
            nearest[part[start : start + chunk]] = part[similarity.topk(nearest.shape[1]).indices.cpu()]
    return nearest


class Batches:
    """Batches of an epoch; their order follows from seed and epoch number, so runs can resume."""

    def __init__(self, pairs: Pairs, config: TrainingConfig, device: torch.device) -> None:
        self._pairs, self._config, self._device = pairs, config, device
        self._labels = torch.from_numpy(pairs.labels)
        self._alike = torch.from_numpy(pairs.groups.alike)
        self._size = whole_shares(min(config.batch_size, len(pairs)))
        self._hard = int(config.hard_negatives * self._size)
        self.count = len(pairs) // self._size
        if self._hard:
            self._near = nearest_videos(pairs.video_rows, _NEIGHBORS, device)
            self._texts_of = torch.argsort(self._labels, stable=True)
            self._first = torch.searchsorted(self._labels[self._texts_of], torch.arange(len(self._near) + 1))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches, `batch_size` pairs each; a last incomplete one is left out."""
        batches = self.rows(number)
        while rows := list(islice(batches, max(1, _READ // self._size))):
            read = torch.cat(rows)
            text, video = (side[read.numpy()] for side in (self._pairs.matches.text, self._pairs.matches.video))
            parts = torch.from_numpy(text), torch.from_numpy(video), self._alike[self._labels[read]]
            for text_part, video_part, labels in zip(*(part.split(self._size) for part in parts), strict=True):
                yield Batch(text_part.to(self._device), _unit(video_part, self._device), labels.to(self._device))

    def rows(self, number: int) -> Iterator[Tensor]:
        """Yield the rows of each batch of an epoch, (batch_size,)."""
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


def _unit(video: Tensor, device: torch.device) -> Tensor:
    return F.normalize(video.to(device), dim=1)
