"""Captions of video files, the pairs of joint training."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dits_adapter._files import sha256
from dits_adapter._reprs import shown_repr
from dits_adapter._wording import counted
from dits_adapter.data._groups import groups_by_texts
from dits_adapter.data._splits import split_videos
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.data.provenance import JUDGES
from dits_adapter.errors import InputError

__all__ = ["Captions"]


@dataclass(frozen=True)
class Captions:
    """Video files and the texts that describe them; several texts may share a video.

    Attributes:
        videos: files.
        texts: one a (text, video) pair.
        labels: row in `videos` of each text's video, (n,) int64.
    """

    videos: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]

    __repr__ = shown_repr

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Captions:
        """Gather (video, text) pairs; each video is listed once, in the order of its first appearance."""
        rows: dict[str, int] = {}
        labels, texts = [], []
        for video, text in pairs:
            labels.append(rows.setdefault(video, len(rows)))
            texts.append(text)
        return cls(tuple(rows), tuple(texts), np.asarray(labels, np.int64))

    @classmethod
    def read(cls, path: str | PathLike[str] | PairsFile) -> Captions:
        """Read a file of pairs (`dits_adapter.data.pairs_file`). Files of the same content are one video.

        Raises:
            InputError: no such file, no pairs in it, lines that are something else, or spans of videos.
        """
        file = path if isinstance(path, PairsFile) else PairsFile(path)
        texts, labels, sources, _ = zip(*file.iter_texts(), strict=True)
        videos = list(file.iter_videos())
        for video in videos:
            if video.span is not None:
                raise InputError(
                    f"{file.path}: {video.id} is a span of a video; joint training takes whole files. Cut the "
                    "span into a file of its own, or train on vectors (`dits-adapter embed`, then `train`)."
                )
        found = Counter(source for source in sources if source not in JUDGES)
        if found:
            counts = ", ".join(f"{count:,} of {source}" for source, count in found.most_common())
            warnings.warn(
                f"{file.path}: of its {len(texts):,} texts some were not written for the videos by people "
                f"({counts}). Joint training chooses its checkpoint by all of them, and its figures are of all; "
                "`train` is judged by texts of people where there are enough.",
                stacklevel=2,
            )
        first = _first_copies([video.path for video in videos])
        if copies := sum(row != number for row, number in enumerate(first)):
            warnings.warn(
                f"{file.path}: of its {len(videos):,} videos {counted(copies, 'is a copy', 'are copies')}, which "
                "the first of the same content stands for.",
                stacklevel=2,
            )
        return cls.of((videos[first[label]].path, text) for label, text in zip(labels, texts, strict=True))

    def of_videos(self, rows: Iterable[int]) -> Captions:
        """Return the pairs of some videos only."""
        chosen = set(rows)
        return Captions.of(
            (self.videos[label], text)
            for text, label in zip(self.texts, self.labels.tolist(), strict=True)
            if label in chosen
        )

    def digest(self) -> str:
        """Return a SHA-256 of the texts and of their grouping by video, independent of file names."""
        content = json.dumps([self.texts, self.labels.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def split(self, fraction: float, seed: int) -> tuple[Captions, Captions]:
        """Split the videos at random as `Pairs.split` does: the larger part, and `fraction` of the videos.

        Videos that have half of their texts in common, apart from case and blanks, stay together. Copies of a
        video in another encoding are not found, as this looks at no pictures.

        Raises:
            InputError: fewer than two videos, or a fraction outside (0, 1).
        """
        same = np.unique([" ".join(text.casefold().split()) for text in self.texts], return_inverse=True)[1]
        groups = groups_by_texts(same, self.labels, len(self.videos))
        training, validation = split_videos(len(self.videos), fraction, seed, groups=groups)
        return self.of_videos(training.tolist()), self.of_videos(validation.tolist())


def _first_copies(files: Sequence[str]) -> list[int]:
    """Return for each file the row of the first one with its content; only files of one size are read."""
    sizes = [os.path.getsize(file) if os.path.isfile(file) else -1 for file in files]
    several = {size for size, times in Counter(sizes).items() if times > 1 and size > 0}
    rows: dict[str | int, int] = {}
    first = []
    for row, (file, size) in enumerate(zip(files, sizes, strict=True)):
        content: str | int = row
        if size in several:
            with suppress(OSError):  # its decoding says why
                content = sha256(Path(file))
        first.append(rows.setdefault(content, row))
    return first
