"""Vectors of texts and videos in a folder: written shard by shard, read through memory maps.

    index.json                what is in the folder, with a SHA-256 of every tensor
    texts-00000.safetensors   vector (n, d) float32   as the encoder gives it, not normalized
                              video  (n,) int64       number of the video that the text describes
    videos-00000.safetensors  vector (m, d) float32   pooled, unit norm
                              frames (m, k, d) float32, absent where only pooled vectors were to be had
                              number (m,) int64       ascending
                              id     (m, b) uint8     UTF-8, padded with zeros

Texts and videos are numbered from 0 in the order of their source. Shard i of a kind has the numbers from
i · span to (i + 1) · span, so no shard depends on another one: each is written once, in any order, appears
whole or not at all, and stays when a run is killed. A broken video keeps its number and has no row; `failures`
in the index says why. Texts are written whether their videos are broken or not and shown only with them: so a
video that is mended later changes its own shard alone.

`index.json` (`CacheIndex`) holds format and version, the `space`, the `source` (SHA-256 of what the vectors were
made from: a run goes on only from the same), the width of ids, the number of frame vectors, for each kind `total`,
`span` and `shards` (rows, file size, digests), the failures, and a checksum of all that. It is replaced after
every shard and holds no times, so an interrupted and resumed run leaves the same bytes as one in one go.

Values are checked once, when they are written: shapes, NaN, zero vectors, norms. A reader checks sizes of files at
once, the digest of a tensor when it is first touched, and keeps the last `MAPPED` tensors mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dits_adapter.data.cache_index import (
    KINDS,
    CacheIndex,
    FailedVideo,
    Kind,
    read_index,
    shard_file,
    tensor_sha256,
)
from dits_adapter.errors import DITSError
from dits_adapter.space import EmbeddingSpace

MAPPED = 4
"""Tensors of a kind that a reader keeps mapped at a time. Mapping one again takes 0.1 ms."""


class Rows:
    """Rows of one tensor in all its shards, as one array that is read where it is indexed.

    An integer, a slice, an array of integers or a mask gives what NumPy would, as a copy in memory;
    `np.asarray` reads all rows.

    Attributes:
        shape, dtype: as of an array.
    """

    def __init__(
        self,
        read: Callable[[int], NDArray[Any]],
        starts: NDArray[np.int64],
        places: NDArray[np.int64],
        row_shape: tuple[int, ...],
        dtype: type[np.generic],
    ) -> None:
        self._read = read
        self._starts = starts
        self._places = places
        self._row_shape = row_shape
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return (len(self._places), *self._row_shape)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        places = self._places[rows]
        flat = np.ravel(places)
        shards = np.searchsorted(self._starts, flat, side="right") - 1
        order = np.argsort(shards, kind="stable")  # each shard is mapped once
        found = np.empty((len(flat), *self._row_shape), self.dtype)
        for chosen in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            if len(chosen):
                shard = int(shards[chosen[0]])
                found[chosen] = self._read(shard)[flat[chosen] - self._starts[shard]]
        return found.reshape(*np.shape(places), *self._row_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows of several files cannot be had as one array without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def select(self, rows: NDArray[np.int64]) -> Rows:
        """Return these rows in this order, without reading them."""
        return Rows(self._read, self._starts, self._places[rows], self._row_shape, self.dtype.type)


class Ids(Sequence[str]):
    """Names of videos, decoded where they are indexed."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self._rows[place]
        return _decode(found) if found.ndim == 1 else [_decode(row) for row in found]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            yield from self[start : start + 4096]

    def select(self, rows: NDArray[np.int64]) -> Ids:
        """Return these names in this order, without reading them."""
        return Ids(self._rows.select(rows))


def _decode(row: NDArray[np.uint8]) -> str:
    return row.tobytes().rstrip(b"\0").decode()


class _Shards:
    """The shards of one kind in a folder, mapped when they are read and checked when they are read first."""

    def __init__(self, folder: Path, index: CacheIndex, kind: Kind) -> None:
        self._folder = folder
        self._kind = kind
        self._section = index.section(kind)
        self._columns = index.columns(kind)
        self._checked: set[tuple[int, str]] = set()
        self.tensor = lru_cache(MAPPED)(self._tensor)
        rows = [shard.rows for _, shard in sorted(self._section.shards.items())]
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def require_files(self) -> None:
        """Refuse a shard that is missing or of another size than the index says."""
        for place, shard in self._section.shards.items():
            path = shard_file(self._folder, self._kind, place)
            again = "The command that made the cache writes it again, and nothing else."
            if not path.is_file():
                raise DITSError(f"{path}: this shard of the cache is missing. {again}")
            if path.stat().st_size < shard.size:
                raise DITSError(f"{path}: is truncated, {path.stat().st_size:,} of {shard.size:,} bytes. {again}")
            if path.stat().st_size > shard.size:
                raise DITSError(f"{path}: has {path.stat().st_size:,} bytes, {shard.size:,} were written. {again}")

    def _tensor(self, place: int, name: str) -> NDArray[Any]:
        path = shard_file(self._folder, self._kind, place)
        dtype, row_shape = self._columns[name]
        shard = self._section.shards[place]
        try:
            with safe_open(path, "pt") as file:  # maps the file, where "np" would copy; and holds no descriptor
                tensor: NDArray[Any] = file.get_tensor(name).numpy()
        except (OSError, SafetensorError) as error:
            raise DITSError(f"{path}: is no intact shard of a cache ({error}).") from None
        if (place, name) not in self._checked:
            whole = tensor.shape == (shard.rows, *row_shape) and tensor.dtype == dtype
            if not whole or tensor_sha256(tensor) != shard.sha256[name]:
                raise DITSError(
                    f"{path}: its tensor {name!r} was changed or damaged after it was written. Delete the file: "
                    "the command that made the cache writes it again, and nothing else."
                )
            self._checked.add((place, name))
        return tensor

    def rows(self, name: str, places: NDArray[np.int64] | None = None) -> Rows:
        """Return a column; with `places`, only those rows of it."""
        dtype, row_shape = self._columns[name]
        if places is None:
            places = np.arange(self._starts[-1])
        return Rows(lambda place: self.tensor(place, name), self._starts[:-1], places, row_shape, dtype)


class EmbeddingCache:
    """A finished cache, opened for reading. Construction reads the numbers of its rows, and no vectors.

    Attributes:
        index: what it says about itself.
        text: text embeddings as the encoder gives them, (n, d) float32; those whose video is there.
        labels: row of each text's video, (n,) int64.
        video: pooled video vectors, (m, d) float32, unit norm.
        frames: frame vectors, (m, k, d) float32, or None.
        ids: names of the videos.

    Raises:
        DITSError: it is unfinished, incomplete or damaged, and where. Damage inside a shard is found when the
            shard is first read.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        for kind in KINDS:
            section = self.index.section(kind)
            if missing := section.missing():
                raise DITSError(
                    f"{self.folder}: is not finished, {len(missing)} of {len(section.spans())} shards of {kind} "
                    "are still to be written. Run the command that began it again; it goes on from there."
                )
        texts, videos = (_Shards(self.folder, self.index, kind) for kind in KINDS)
        texts.require_files()
        videos.require_files()
        numbers = np.asarray(videos.rows("number"))
        described = np.asarray(texts.rows("video"))
        rows = np.searchsorted(numbers, described)
        there = np.flatnonzero(np.append(numbers, -1)[rows] == described)
        self.text = texts.rows("vector", there)
        self.labels: NDArray[np.int64] = rows[there]
        self.video = videos.rows("vector")
        self.frames = videos.rows("frames") if self.index.frames else None
        self.ids = Ids(videos.rows("id"))

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of all vectors."""
        return self.index.space

    @property
    def failures(self) -> list[FailedVideo]:
        """The videos without vectors, and why."""
        return self.index.failures
