"""(text, video) pairs as cached vectors."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dits_adapter._reprs import short_repr
from dits_adapter._user_files import parse_json
from dits_adapter._wording import counted, validated
from dits_adapter.adapters import Matches, Rows
from dits_adapter.data._groups import Groups, find_groups
from dits_adapter.data._ids import VideoIds, source_file
from dits_adapter.data._sharded_array import ShardedArray
from dits_adapter.data._splits import MOST_HELD_OUT, held_out_size, split_videos
from dits_adapter.data.cache import open_cache
from dits_adapter.data.provenance import JUDGES, SOURCES, TextMarks
from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import check_vectors

__all__ = ["LEAST_JUDGES", "Pairs", "held_out", "load_pairs", "record_split"]

_DIGESTED = 16
"""Vectors of each side that go into a digest."""

LEAST_JUDGES = 50
"""Held-out videos with texts of people from which on these texts alone judge: R@1 is then known to 14 points."""

_Vectors: TypeAlias = NDArray[np.float32] | ShardedArray


class Pairs:
    """Texts and the videos they describe; several texts may share a video.

    Vectors in memory are checked here. Those of an `EmbeddingCache` were checked when they were written: they are
    read when `text` or `video` is first asked for, so that splitting a large cache reads each vector once.

    Args:
        text: text embeddings as the encoder gives them, (n, d) float32.
        video: pooled video vectors, (m, d) float32, unit norm.
        labels: row in `video` of each text's video, (n,) integers.
        space: the embedding space of both.
        video_ids: a name for each video; `0`, `1`, … by default.
        frames: frame vectors of each video, (m, k, d) float32, for re-rankers; they stay where they are, and
            indexing them gives arrays.
        marks: source and confidence of each text; None where all texts are of people.
        files: number of each video's file, (m,); None for those of ids as `a.mp4#t=12,20`, which is a span of
            `a.mp4`, and for all other videos a file of their own.

    Attributes:
        left_out: number of texts that `judging` left out, by reason.
        copies_left_out: number of copies of videos that it left out.

    Raises:
        InputError: shapes that do not fit, NaN, or a label without a video, naming the row.
    """

    def __init__(
        self,
        text: _Vectors,
        video: _Vectors,
        labels: NDArray[np.int64],
        space: EmbeddingSpace,
        video_ids: Sequence[str] = (),
        frames: _Vectors | None = None,
        marks: TextMarks | None = None,
        files: NDArray[np.int64] | None = None,
    ) -> None:
        self._text = text
        self._video = video
        self.labels = labels
        self.space = space
        self.video_ids = video_ids if len(video_ids) else tuple(map(str, range(len(video))))
        self.frames = frames
        self.marks = marks
        self._given_files = files
        self.left_out: dict[str, int] = {}
        self.copies_left_out = 0
        for name, vectors, side in (("text", text, space.text), ("video", video, space.video)):
            try:
                check_vectors(vectors if isinstance(vectors, np.ndarray) else vectors[:0], side.width)
            except InputError as error:
                raise InputError(f"{name} vectors: {error}") from None
        if frames is not None:
            self._check_frames(frames)
        if labels.shape != (len(text),):
            raise InputError(f"labels have shape {labels.shape}; {len(text)} texts need one label each.")
        bad = np.flatnonzero((labels < 0) | (labels >= len(video)))
        if len(bad):
            raise InputError(
                f"text {bad[0]} has label {labels[bad[0]]}; there are {len(video)} videos, counted from 0."
            )
        if marks is not None and not len(marks.sources) == len(marks.confidences) == len(text):
            raise InputError(
                f"{len(marks.sources)} sources and {len(marks.confidences)} confidences for {len(text)} texts."
            )
        if files is not None and len(files) != len(video):
            raise InputError(f"{len(files)} numbers of files for {len(video)} videos.")
        if len(self.video_ids) != len(video):
            raise InputError(f"{len(self.video_ids)} video ids for {len(video)} videos.")

    def __repr__(self) -> str:
        return short_repr(self, texts=len(self), videos=len(self._video), space=str(self.space))

    def _check_frames(self, frames: _Vectors) -> None:
        width = self.space.video.width
        if len(frames.shape) != 3 or (frames.shape[0], frames.shape[2]) != (len(self._video), width):
            raise InputError(f"frame vectors have shape {frames.shape}, not ({len(self._video)}, k, {width}).")
        if isinstance(frames, np.ndarray) and not np.isfinite(frames).all():
            row = int(np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2)))[0])
            raise InputError(f"frame vectors: row {row} holds NaN or infinite values; remove or re-embed it.")

    @cached_property
    def text(self) -> NDArray[np.float32]:
        """Text embeddings as the encoder gives them, (n, d) float32, in memory."""
        return np.asarray(self._text)

    @cached_property
    def video(self) -> NDArray[np.float32]:
        """Pooled video vectors, (m, d) float32, unit norm, in memory."""
        return np.asarray(self._video)

    @property
    def video_rows(self) -> Rows:
        """Pooled video vectors, (m, d), read where they are indexed."""
        return self._video

    @cached_property
    def digest(self) -> str:
        """Digest of the labels and of some vectors, by which the same pairs are known again."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i8").tobytes())
        for vectors in (self._text, self._video):
            rows = np.linspace(0, len(vectors) - 1, _DIGESTED).astype(np.int64)
            digest.update(np.ascontiguousarray(np.asarray(_select(vectors, np.unique(rows))), "<f4").tobytes())
        if self.marks is not None:
            digest.update(self.marks.sources.tobytes())
        if self._files.max() + 1 < len(self._files):
            digest.update(np.ascontiguousarray(self._files, "<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def _files(self) -> NDArray[np.int64]:
        """Number of each video's file, (m,), from 0 on."""
        if self._given_files is not None:
            return np.unique(self._given_files, return_inverse=True)[1]
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(source_file(name), len(numbers)) for name in self.video_ids], np.int64)

    @cached_property
    def groups(self) -> Groups:
        """Videos that belong together, and texts that stand for several; found among all pairs of a split."""
        return find_groups(self._text, self._video, self.labels, self._files)

    @cached_property
    def sources(self) -> dict[str, int]:
        """Number of texts of each source."""
        return {SOURCES[0]: len(self)} if self.marks is None else self.marks.counts()

    @cached_property
    def matches(self) -> Matches:
        """Texts and their videos, row by row, read where they are indexed, and the moments of all.

        Texts of people judge where there are such texts of `LEAST_JUDGES` videos.
        """
        video, groups = self._video, self.groups.whole[self.labels]
        enough = self.marks is not None and len(np.unique(self.labels[self.judges])) >= LEAST_JUDGES
        judges = self.judges if enough else None
        if isinstance(video, ShardedArray):
            return Matches(self._text, video.select(self.labels), groups, judges)
        rows = ShardedArray(lambda _: video, np.zeros(1, np.int64), self.labels, video.shape[1:], np.float32)
        return Matches(self._text, rows, groups, judges)

    def __len__(self) -> int:
        return len(self._text)

    def of_videos(self, rows: NDArray[np.int64]) -> Pairs:
        """Return the pairs of some videos only, relabeled."""
        place = np.full(len(self._video), -1)
        place[rows] = np.arange(len(rows))
        return self._part(rows, np.flatnonzero(place[self.labels] >= 0), place)

    def _part(self, rows: NDArray[np.int64], texts: NDArray[np.int64], place: NDArray[np.int64]) -> Pairs:
        """Return some videos and texts; `place` is the new row of each video."""
        ids = self.video_ids
        part = Pairs(
            _select(self._text, texts),
            _select(self._video, rows),
            place[self.labels[texts]],
            self.space,
            ids.select(rows) if isinstance(ids, VideoIds) else tuple(ids[row] for row in rows),
            None if self.frames is None else _select(self.frames, rows),
            None if self.marks is None else self.marks[texts],
            None if self._given_files is None else self._given_files[rows],
        )
        if "groups" in self.__dict__:
            part.groups = self.groups.part(rows, texts)
        return part

    @cached_property
    def judges(self) -> NDArray[np.bool_]:
        """Mask of the texts that may judge: of people, and of one video alone, (n,)."""
        of_people = True if self.marks is None else np.isin(self.marks.sources, [SOURCES.index(s) for s in JUDGES])
        return ~self.groups.several & of_people

    def judging(self, least: int = LEAST_JUDGES) -> Pairs:
        """Return the videos to search, and the texts to judge adapters by.

        Of the copies of a video one stays, which the texts of all ask for. Texts that stand for several videos are
        left out, which ask for one of them and may get another. The others are those of people (`JUDGES`), where
        there are such texts of `least` videos or of all, and else all.
        Where nothing would be left, all texts stay.
        """
        masks = [self.judges, ~self.groups.several]
        if len(np.unique(self.labels[masks[0]])) < min(least, len(self._video)):
            masks = masks[1:]
        mask = next((mask for mask in masks if mask.any()), np.ones(len(self), bool))
        first = np.unique(self.groups.copies, return_index=True)[1]
        if mask.all() and len(first) == len(self._video):
            return self
        part = self._part(first, np.flatnonzero(mask), self.groups.copies)
        part.copies_left_out = len(self._video) - len(first)
        several = int((self.groups.several & ~mask).sum())
        part.left_out = {
            "of several videos": several,
            "of other sources than people": int((~mask).sum()) - several,
        }
        return part

    def split(self, fraction: float, seed: int, most: int = MOST_HELD_OUT) -> tuple[Pairs, Pairs]:
        """Split the videos at random; all texts of a video, and videos that belong together (`groups`), stay so.

        Where only some videos have texts of people, those to hold out are drawn from them, half of them at most.
        With fewer than `LEAST_JUDGES` to hold out, unless so few are wanted, they are drawn from all.

        Returns:
            The larger part; and one with `fraction` of the videos, at least one and at most `most` where groups
            allow it, with the texts to judge by (`judging`).

        Raises:
            InputError: fewer than two videos, or a fraction outside (0, 1).
        """
        count = len(self._video)
        size = held_out_size(count, fraction, most)
        judged = np.zeros(count, bool)
        judged[self.labels[self.judges]] = True
        enough = min(size, int(judged.sum()) // 2)
        drawn = self.marks is not None and not judged.all() and enough >= min(size, LEAST_JUDGES)
        training, held = split_videos(
            count, fraction, seed, most, groups=self.groups.whole, judged=judged if drawn else None
        )
        return self.of_videos(training), self.of_videos(held).judging(1 if drawn else LEAST_JUDGES)

    def at_most(self, videos: int, seed: int) -> Pairs:
        """Return the pairs of so many videos, drawn at random, with a warning; all where they are fewer."""
        count = len(self._video)
        if count <= videos:
            return self
        warnings.warn(
            f"of {count:,} videos to measure on {videos:,} are drawn: each text searches all of them, which takes "
            "the square of their number.",
            stacklevel=2,
        )
        return self.of_videos(np.sort(np.random.default_rng(seed).choice(count, videos, replace=False)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file."""
        tensors: dict[str, NDArray[Any]] = {
            "text": np.ascontiguousarray(self.text),
            "video": np.ascontiguousarray(self.video),
            "labels": np.ascontiguousarray(self.labels),
        }
        if self.frames is not None:
            tensors["frames"] = np.ascontiguousarray(self.frames)
        if self.marks is not None:
            tensors |= {"source": self.marks.sources, "confidence": self.marks.confidences}
        if self._given_files is not None:
            tensors["file"] = self._given_files
        metadata = {"space": self.space.model_dump_json(), "video_ids": json.dumps(list(self.video_ids))}
        save_file(tensors, path, metadata)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Pairs:
        """Load a file of `Pairs.save`.

        Raises:
            DITSError: the file is missing, damaged, or holds something else.
        """
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                text, video, labels = (file.get_tensor(name) for name in ("text", "video", "labels"))
                names = set(file.keys())
                frames = file.get_tensor("frames") if "frames" in names else None
                files = file.get_tensor("file") if "file" in names else None
                marks = None
                if "source" in names:
                    marks = TextMarks(file.get_tensor("source"), file.get_tensor("confidence"))
            space = validated(EmbeddingSpace, metadata["space"])
            ids = tuple(map(str, parse_json(metadata["video_ids"], path)))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DITSError(
                f"{path}: is no file of cached pairs ({type(error).__name__}: {error}). `dits-adapter embed` "
                "makes a cache of texts and their videos."
            ) from None
        return cls(text, video, labels.astype(np.int64), space, ids, frames, marks, files)


def load_pairs(path: str | PathLike[str]) -> Pairs:
    """Open pairs from a file of `Pairs.save` or a cache folder of `dits-adapter embed`.

    Raises:
        DITSError: there is no such file or folder, or it is unfinished or damaged, and where.
    """
    cache = open_cache(path)
    if cache is None:
        return Pairs.load(path)
    return Pairs(
        cache.text, cache.video, cache.labels, cache.space, cache.ids, cache.frames, cache.marks, cache.files
    )


def record_split(pairs: Pairs, fraction: float | None, seed: int, most: int = MOST_HELD_OUT) -> dict[str, Any]:
    """Return the record of a split, from which `held_out` makes it again.

    Args:
        pairs: all pairs.
        fraction: share of the videos that `Pairs.split` held out; None where all were trained on.
        seed: seed of the split.
        most: number of videos that it held out at most.
    """
    return {"pairs": pairs.digest, "fraction": fraction, "seed": seed, "most": most}


def held_out(pairs: Pairs, training: Mapping[str, Any]) -> Pairs:
    """Return the part of pairs that an adapter was not trained on, as far as the record of its training tells.

    Where the adapter was trained on all of them, a warning says so.

    Args:
        pairs: pairs to measure the adapter on.
        training: record of its training (`Artifact.training`).
    """
    record = training.get("held_out") or (training.get("inner") or {}).get("held_out")  # behind a bank
    if record is None or record["pairs"] != pairs.digest:
        return pairs
    if record["fraction"] is None:
        warnings.warn(
            "the adapter was trained on these pairs: figures and probabilities flatter it. Take pairs of other "
            "videos.",
            stacklevel=2,
        )
        return pairs
    part = pairs.split(record["fraction"], record["seed"], record["most"])[1]
    warnings.warn(
        f"the adapter was trained on a part of these pairs: the others are taken, {counted(len(part), 'text')} of "
        f"{counted(len(part.video), 'video')}.",
        stacklevel=2,
    )
    return part


def _select(vectors: _Vectors, rows: NDArray[np.int64]) -> _Vectors:
    return vectors.select(rows) if isinstance(vectors, ShardedArray) else vectors[rows]
