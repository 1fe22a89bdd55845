"""Writer of a cache: shard by shard, resumable, one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import portalocker
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from dits_adapter._files import PART, require_writable, write_atomically
from dits_adapter._reprs import short_repr
from dits_adapter._wording import validated
from dits_adapter.data._cache_index import (
    INDEX,
    KINDS,
    CacheIndex,
    FailedVideo,
    Kind,
    Section,
    Shard,
    is_cache,
    read_index,
    shard_file,
    tensor_sha256,
)
from dits_adapter.data._ids import encode_ids
from dits_adapter.data._shards import ShardReader
from dits_adapter.data.provenance import TextMarks
from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace

__all__ = ["SHARD_VECTORS", "CacheWriter", "require_cache_folder"]

_LOCK = ".lock"

SHARD_VECTORS = 4096
"""Vectors that a shard holds, those of frames counted: 8 MB at d = 512. A killed run loses less than one shard."""

_UNIT_TOLERANCE = 1e-3


def require_cache_folder(folder: Path, source: str | None = None) -> None:
    """Refuse a folder that a cache cannot be written to; called before the work.

    Args:
        folder: new, empty, or with a cache that was begun.
        source: SHA-256 of what the cache is to be made from, if it is known yet.

    Raises:
        DITSError: the folder holds something else, or a cache of another source.
        InputError: it is a file, or may not be written to.
    """
    require_writable(folder)
    if is_cache(folder):
        if source is not None and read_index(folder).source != source:
            raise _other_source(folder)
        return
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if foreign := sorted(name for name in names if name != _LOCK and not name.endswith(PART)):
        raise DITSError(f"{folder}: holds no cache but {foreign[0]}. Choose a new or empty folder.")


def _other_source(folder: Path) -> DITSError:
    return DITSError(
        f"{folder}: was begun from other pairs or vectors than these. Choose another folder, or delete this one."
    )


class CacheWriter:
    """Writer of a new or unfinished cache; a context manager that excludes other writers.

    Args:
        folder: new, empty, or a cache that was begun with the same arguments.
        space: space of all vectors.
        source: SHA-256 of what they are made from.
        texts, videos: numbers of texts and of videos in the source.
        frames: frame vectors k of each video; 0 for none.
        id_bytes: length of the longest id in UTF-8.
        grouped: True where videos have numbers of their files.
        marked: True where each text has a source and a confidence.

    Attributes:
        index: description of the cache: what is written and what is missing.

    Raises:
        SpaceMismatchError: the folder holds a cache of another space.
        DITSError: the folder holds something else or a cache of another source, or another writer is at work.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        space: EmbeddingSpace,
        source: str,
        texts: int,
        videos: int,
        frames: int,
        id_bytes: int,
        grouped: bool = False,
        marked: bool = False,
    ) -> None:
        self.folder = Path(folder)
        fields = {
            "space": space,
            "source": source,
            "frames": frames,
            "id_bytes": id_bytes,
            "texts": Section(total=texts, span=SHARD_VECTORS),
            "videos": Section(total=videos, span=max(1, SHARD_VECTORS // (1 + frames))),
            "grouped": grouped,
            "marked": marked,
        }
        self.index = validated(CacheIndex, fields)
        self._lock = portalocker.Lock(self.folder / _LOCK, "a", timeout=0, fail_when_locked=True)

    def __repr__(self) -> str:
        return short_repr(self, str(self.folder), space=str(self.index.space))

    def __enter__(self) -> CacheWriter:
        require_cache_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except portalocker.exceptions.LockException:
            raise DITSError(f"{self.folder}: another process is writing to this cache.") from None
        try:
            for path in self.folder.glob(f"*{PART}"):  # of a run that was killed
                path.unlink()
            if is_cache(self.folder):
                self._resume(read_index(self.folder))
            else:
                self._write_index()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        (self.folder / _LOCK).unlink(missing_ok=True)
        self._lock.release()

    def _resume(self, begun: CacheIndex) -> None:
        begun.space.require(
            self.index.space,
            mine=f"the cache {self.folder}",
            theirs="what is to be written to it",
            together=True,
        )
        sources = [
            (i.source, i.texts.total, i.videos.total, i.frames, i.id_bytes, i.grouped, i.marked)
            for i in (begun, self.index)
        ]
        if sources[0] != sources[1]:
            raise _other_source(self.folder)
        for kind in KINDS:
            shards = begun.section(kind).shards
            for place, shard in list(shards.items()):
                path = shard_file(self.folder, kind, place)
                if not path.is_file() or path.stat().st_size != shard.size:
                    del shards[place]
        self.index = begun

    def spans_of(self, numbers: Iterable[int]) -> list[range]:
        """Return the spans that hold some videos, each once."""
        span, total = self.index.videos.span, self.index.videos.total
        starts = sorted({number // span * span for number in numbers})
        return [range(start, min(start + span, total)) for start in starts]

    def rows_of(self, span: range) -> int:
        """Return how many videos of a span are written."""
        shard = self.index.videos.shards.get(span.start // self.index.videos.span)
        return 0 if shard is None else shard.rows

    def videos_of(self, span: range) -> dict[str, NDArray[Any]]:
        """Read back the tensors of a span's shard; without rows where none is written."""
        columns = self.index.columns("videos")
        if not self.rows_of(span):
            return {name: np.empty((0, *row), dtype) for name, (dtype, row) in columns.items()}
        reader = ShardReader(self.folder, self.index, "videos")
        return {name: np.array(reader.tensor(span.start // self.index.videos.span, name)) for name in columns}

    def write_texts(
        self, span: range, vectors: ArrayLike, videos: ArrayLike, marks: TextMarks | None = None
    ) -> None:
        """Write the texts of a span.

        Args:
            span: one of `index.texts.spans()`.
            vectors: (len(span), d) floats.
            videos: number of each text's video, (len(span),).
            marks: source and confidence of each text, in a cache that is `marked`.

        Raises:
            InputError: a text without direction, or of a video that the source does not have, by its number.
        """
        vectors, videos = np.asarray(vectors, np.float32), np.asarray(videos, np.int64)
        _require_direction(vectors, lambda row: f"text {span[row]}")
        total = self.index.videos.total
        bad = np.flatnonzero((videos < 0) | (videos >= total))
        if len(bad):
            raise InputError(
                f"text {span[bad[0]]} belongs to video {videos[bad[0]]}; there are {total}, counted from 0."
            )
        tensors: dict[str, NDArray[Any]] = {"vector": vectors, "video": videos}
        if marks is not None:
            tensors |= {"source": marks.sources, "confidence": marks.confidences}
        self._write("texts", span, len(span), tensors)

    def write_videos(
        self,
        span: range,
        numbers: ArrayLike,
        ids: Sequence[str],
        vectors: ArrayLike,
        frames: ArrayLike | None,
        failures: Sequence[FailedVideo] = (),
        files: ArrayLike | None = None,
    ) -> None:
        """Write the videos of a span, in the place of its earlier shard.

        Args:
            span: one of `index.videos.spans()`.
            numbers: numbers of the videos with vectors, ascending, (r,).
            ids: their ids.
            vectors: pooled, (r, d), unit norm.
            frames: (r, k, d), or None if the cache has none.
            failures: the other videos of the span.
            files: number of each video's file, (r,), in a cache that is `grouped`.

        Raises:
            InputError: a vector that is not finite or not of unit norm, by the id of its video; or videos that are
                not those of the span.
        """
        tensors: dict[str, NDArray[Any]] = {
            "number": np.asarray(numbers, np.int64),
            "id": encode_ids(ids, self.index.id_bytes),
            "vector": np.asarray(vectors, np.float32),
        }
        if files is not None:
            tensors["file"] = np.asarray(files, np.int64)
        if frames is not None:
            tensors["frames"] = np.asarray(frames, np.float32)
        for name in ("vector", "frames"):
            if name in tensors:
                _require_direction(tensors[name], lambda row: f"video {ids[row]!r}")
        off = np.flatnonzero(np.abs(np.linalg.norm(tensors["vector"], axis=1) - 1) > _UNIT_TOLERANCE)
        if len(off):
            norm = np.linalg.norm(tensors["vector"][off[0]])
            raise InputError(f"video {ids[off[0]]!r} has a vector of norm {norm:.4g}; unit norm is expected.")
        if sorted([*tensors["number"].tolist(), *(failed.number for failed in failures)]) != list(span):
            raise InputError(f"these are not the videos {span.start} to {span.stop - 1}, each once.")
        others = [failed for failed in self.index.failures if failed.number not in span]
        self.index.failures = sorted([*others, *failures], key=lambda failed: failed.number)
        self._write("videos", span, len(tensors["number"]), tensors)

    def _write(self, kind: Kind, span: range, rows: int, tensors: dict[str, NDArray[Any]]) -> None:
        for name, (dtype, row) in self.index.columns(kind).items():
            tensor = np.ascontiguousarray(tensors[name])
            if tensor.shape != (rows, *row) or tensor.dtype != dtype:
                expected = f"{np.dtype(dtype)} of shape {(rows, *row)}"
                raise InputError(
                    f"{kind}: {name} is {tensor.dtype} of shape {tensor.shape}; {expected} is expected."
                )
            tensors[name] = tensor
        place = span.start // self.index.section(kind).span
        path = shard_file(self.folder, kind, place)
        try:
            with write_atomically(path) as part:
                save_file(tensors, part)
        except (OSError, SafetensorError) as error:
            raise DITSError(
                f"{path}: cannot be written ({error}). What is written stays; the same command goes on from there."
            ) from error
        digests = {name: tensor_sha256(tensor) for name, tensor in sorted(tensors.items())}
        self.index.section(kind).shards[place] = Shard(rows=rows, size=path.stat().st_size, sha256=digests)
        self._write_index()

    def _write_index(self) -> None:
        for kind in KINDS:
            section = self.index.section(kind)
            section.shards = dict(sorted(section.shards.items()))
        self.index.checksum = self.index.expected_checksum()
        with write_atomically(self.folder / INDEX) as part:
            part.write_text(self.index.model_dump_json(indent=1) + "\n", "utf-8")


def _require_direction(vectors: NDArray[np.float32], name: Callable[[int], str]) -> None:
    """Refuse rows with a NaN, an infinite value, or a vector that is zero."""
    norms = np.linalg.norm(vectors, axis=-1)
    valid = (norms > 0) & np.isfinite(norms)
    bad = np.flatnonzero(~valid.all(axis=tuple(range(1, valid.ndim))))
    if len(bad):
        fault = "a zero vector" if (norms[bad[0]] == 0).any() else "NaN or infinite values"
        raise InputError(f"{name(int(bad[0]))} has {fault}; remove or re-embed it.")
