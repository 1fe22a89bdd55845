"""(text, video) pairs as cached vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dits_adapter.clip import check_vectors
from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace


def split_videos(count: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part the rows of videos at random: ascending rows to train on, and `fraction` of them to hold out.

    Raises:
        InputError: fewer than two videos, or a fraction outside (0, 1).
    """
    if count < 2 or not 0 < fraction < 1:
        raise InputError(
            f"cannot hold out {fraction} of {count} videos; it takes two videos and 0 < fraction < 1."
        )
    order = np.random.default_rng(seed).permutation(count)
    held = min(max(1, round(fraction * count)), count - 1)
    return np.sort(order[held:]), np.sort(order[:held])


@dataclass(frozen=True)
class Pairs:
    """Texts and the videos they describe; several texts may share a video.

    Attributes:
        text: text embeddings as the encoder gives them, (n, d) float32.
        video: pooled video vectors, (m, d) float32, unit norm.
        labels: row in `video` of each text's video, (n,) int64.
        space: the embedding space of both.
        video_ids: a name for each video; `0`, `1`, … by default.

    Raises:
        InputError: shapes that do not fit, NaN, or a label without a video, naming the row.
    """

    text: NDArray[np.float32]
    video: NDArray[np.float32]
    labels: NDArray[np.int64]
    space: EmbeddingSpace
    video_ids: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for name, vectors in (("text", self.text), ("video", self.video)):
            try:
                check_vectors(vectors, self.space.width)
            except InputError as error:
                raise InputError(f"{name} vectors: {error}") from None
        if self.labels.shape != (len(self.text),):
            raise InputError(f"labels have shape {self.labels.shape}; {len(self.text)} texts need one label each.")
        bad = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.video)))
        if len(bad):
            raise InputError(
                f"text {bad[0]} has label {self.labels[bad[0]]}; "
                f"there are {len(self.video)} videos, counted from 0."
            )
        if not len(self.video_ids):
            object.__setattr__(self, "video_ids", tuple(str(i) for i in range(len(self.video))))
        if len(self.video_ids) != len(self.video):
            raise InputError(f"{len(self.video_ids)} video ids for {len(self.video)} videos.")

    def __len__(self) -> int:
        return len(self.text)

    def of_videos(self, rows: NDArray[np.int64]) -> Pairs:
        """Return the pairs of the given videos only, relabelled."""
        place = np.full(len(self.video), -1)
        place[rows] = np.arange(len(rows))
        texts = np.flatnonzero(place[self.labels] >= 0)
        ids = tuple(self.video_ids[row] for row in rows)
        return Pairs(self.text[texts], self.video[rows], place[self.labels[texts]], self.space, ids)

    def split(self, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
        """Part the videos at random; all texts of a video stay together.

        Returns:
            The larger part, and one with `fraction` of the videos, at least one.

        Raises:
            InputError: fewer than two videos, or a fraction outside (0, 1).
        """
        kept, held = split_videos(len(self.video), fraction, seed)
        return self.of_videos(kept), self.of_videos(held)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file."""
        tensors: dict[str, NDArray[Any]] = {
            "text": np.ascontiguousarray(self.text),
            "video": np.ascontiguousarray(self.video),
            "labels": np.ascontiguousarray(self.labels),
        }
        metadata = {"space": self.space.model_dump_json(), "video_ids": json.dumps(list(self.video_ids))}
        save_file(tensors, path, metadata)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Pairs:
        """Read what `save` wrote.

        Raises:
            DITSError: the file is missing, damaged, or holds something else.
        """
        if not Path(path).is_file():
            raise DITSError(f"{path}: no such file. Write one with Pairs(…).save(path).")
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                text, video, labels = (file.get_tensor(name) for name in ("text", "video", "labels"))
            space = EmbeddingSpace.model_validate_json(metadata["space"])
            ids = tuple(json.loads(metadata["video_ids"]))
        except (SafetensorError, KeyError, ValueError, ValidationError) as error:
            raise DITSError(f"{path}: is no file of cached pairs ({type(error).__name__}: {error}).") from None
        return cls(text, video, labels.astype(np.int64), space, ids)

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return text, unit video vectors and labels as tensors on a device."""
        video = torch.nn.functional.normalize(torch.from_numpy(self.video).to(device), dim=1)
        return torch.from_numpy(self.text).to(device), video, torch.from_numpy(self.labels).to(device)
