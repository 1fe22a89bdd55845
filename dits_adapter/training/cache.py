"""Vectors of texts and videos in a folder: written shard by shard, read through memory maps.

    index.json                what is in the folder, with a SHA-256 of every tensor
    texts-00000.safetensors   vector (n, d) float32   as the encoder gives it, not normalised
                              video  (n,) int64       number of the video that the text describes
    videos-00000.safetensors  vector (m, d) float32   pooled, unit norm
                              frames (m, k, d) float32, absent where only pooled vectors were to be had
                              number (m,) int64       ascending
                              id     (m, b) uint8     UTF-8, padded with zeros

Texts and videos are numbered from 0 in the order of their source. Shard i of a kind has the numbers from
i · span to (i + 1) · span, so no shard depends on another one: each is written once, in any order, appears
whole or not at all, and stays when a run is killed. A broken video keeps its number and has no row; `quarantine`
in the index says why. Texts are written whether their videos are broken or not and shown only with them: so a
video that is mended later changes its own shard alone.

`index.json` (`CacheIndex`) holds format and version, the `space`, the `source` (SHA-256 of what the vectors were
made from: a run goes on only from the same), the width of ids, the number of frame vectors, for each kind `total`,
`span` and `shards` (rows, file size, digests), the quarantine, and a checksum of all that. It is replaced after
every shard and holds no times, so an interrupted and resumed run leaves the same bytes as one in one go.

Values are checked once, when they are written: shapes, NaN, zero vectors, norms. A reader checks sizes of files at
once, the digest of a tensor when it is first touched, and keeps the last `MAPPED` tensors mapped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np
import portalocker
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace

FORMAT_VERSION = 1
INDEX = "index.json"
LOCK = ".lock"
PART = ".part"
"""Suffix of a file that is still being written."""
SHARD_VECTORS = 4096
"""Vectors that a shard holds, those of frames counted: 8 MB at d = 512. A killed run loses less than one shard."""
MAPPED = 4
"""Tensors of a kind that a reader keeps mapped at a time. Mapping one again takes 0.1 ms."""
UNIT_TOLERANCE = 1e-3

Kind = Literal["texts", "videos"]
KINDS: tuple[Kind, Kind] = ("texts", "videos")
Column = tuple[type[np.generic], tuple[int, ...]]


class Broken(BaseModel):
    """A video without vectors.

    Attributes:
        number: of the video in its source.
        id: its name.
        reason: why nothing could be had of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    id: str
    reason: str


class Shard(BaseModel):
    """One file: its rows, its size in bytes, and the SHA-256 of each tensor's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    size: int
    sha256: dict[str, str]


class Section(BaseModel):
    """All shards of one kind.

    Attributes:
        total: texts or videos in the source.
        span: how many of them a shard stands for; the last one may have fewer.
        shards: those that are written, by place.
    """

    model_config = ConfigDict(extra="forbid")

    total: int = Field(ge=1)
    span: int = Field(ge=1)
    shards: dict[int, Shard] = Field(default_factory=dict)

    def spans(self) -> list[range]:
        """Return the numbers that each shard stands for, written or not."""
        starts = range(0, self.total, self.span)
        return [range(start, min(start + self.span, self.total)) for start in starts]

    def missing(self) -> list[range]:
        """Return the spans that are not written yet."""
        return [span for place, span in enumerate(self.spans()) if place not in self.shards]


class CacheIndex(BaseModel):
    """Contents of `index.json`: see the module's description.

    Attributes:
        frames: frame vectors k of each video; 0 where there are none.
        id_bytes: width b of the ids.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["dits_adapter.cache"] = "dits_adapter.cache"
    format_version: int = FORMAT_VERSION
    space: EmbeddingSpace
    source: str
    frames: int = Field(ge=0)
    id_bytes: int = Field(ge=1)
    texts: Section
    videos: Section
    quarantine: list[Broken] = Field(default_factory=list)
    checksum: str = ""

    def expected_checksum(self) -> str:
        """Digest of every field but `checksum` in canonical JSON."""
        content = json.dumps(self.model_dump(mode="json", exclude={"checksum"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def section(self, kind: Kind) -> Section:
        """Return the shards of a kind."""
        return self.texts if kind == "texts" else self.videos

    def columns(self, kind: Kind) -> dict[str, Column]:
        """Return the tensors of a shard: dtype and shape of one row, by name."""
        columns: dict[str, Column] = {"vector": (np.float32, (self.space.width,))}
        if kind == "texts":
            return columns | {"video": (np.int64, ())}
        if self.frames:
            columns["frames"] = (np.float32, (self.frames, self.space.width))
        return columns | {"number": (np.int64, ()), "id": (np.uint8, (self.id_bytes,))}


def is_cache(folder: Path) -> bool:
    """Tell whether a folder holds a cache, finished or not."""
    return (folder / INDEX).is_file()


def read_index(folder: Path) -> CacheIndex:
    """Read and check a cache's `index.json`; its shards may be missing.

    Raises:
        DITSError: there is none, or it is damaged, of another version, or of something else.
    """
    path = folder / INDEX
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DITSError(f"{folder}: holds no {INDEX}; this is no cache of vectors.") from None
    except ValueError as error:
        raise DITSError(f"{path}: is not valid JSON ({error}); it was damaged after it was written.") from None
    if not isinstance(raw, dict) or raw.get("format") != "dits_adapter.cache":
        raise DITSError(f"{path}: is not the index of a cache (no format: dits_adapter.cache).")
    if raw.get("format_version") != FORMAT_VERSION:
        raise DITSError(
            f"{path}: has format version {raw.get('format_version')!r}, this release reads version "
            f"{FORMAT_VERSION}. Upgrade with: pip install -U dits-adapter"
        )
    try:
        index = CacheIndex.model_validate(raw)
    except ValidationError as error:
        raise DITSError(f"{path}: is invalid. {error}") from None
    if index.checksum != index.expected_checksum():
        raise DITSError(f"{path}: was changed or damaged after it was written.")
    return index


def _file(folder: Path, kind: Kind, place: int) -> Path:
    return folder / f"{kind}-{place:05d}.safetensors"


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.data).hexdigest()


# --- Reading ------------------------------------------------------------------------------------------------


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


def encode_ids(ids: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Write names as rows of UTF-8 padded with zeros, (len(ids), width)."""
    return np.array([name.encode() for name in ids], f"S{width}").view(np.uint8).reshape(len(ids), width)


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
            path = _file(self._folder, self._kind, place)
            again = "The command that made the cache writes it again, and nothing else."
            if not path.is_file():
                raise DITSError(f"{path}: this shard of the cache is missing. {again}")
            if path.stat().st_size < shard.size:
                raise DITSError(f"{path}: is truncated, {path.stat().st_size:,} of {shard.size:,} bytes. {again}")
            if path.stat().st_size > shard.size:
                raise DITSError(f"{path}: has {path.stat().st_size:,} bytes, {shard.size:,} were written. {again}")

    def _tensor(self, place: int, name: str) -> NDArray[Any]:
        path = _file(self._folder, self._kind, place)
        dtype, row_shape = self._columns[name]
        shard = self._section.shards[place]
        try:
            with safe_open(path, "pt") as file:  # maps the file, where "np" would copy; and holds no descriptor
                tensor: NDArray[Any] = file.get_tensor(name).numpy()
        except (OSError, SafetensorError) as error:
            raise DITSError(f"{path}: is no intact shard of a cache ({error}).") from None
        if (place, name) not in self._checked:
            whole = tensor.shape == (shard.rows, *row_shape) and tensor.dtype == dtype
            if not whole or _sha256(tensor) != shard.sha256[name]:
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
    def quarantine(self) -> list[Broken]:
        """The videos without vectors, and why."""
        return self.index.quarantine


# --- Writing ------------------------------------------------------------------------------------------------


class CacheWriter:
    """Begins a cache or goes on with one, shard by shard; a context manager that keeps other writers out.

    Args:
        folder: new, empty, or a cache that was begun with the same arguments.
        space: of all vectors.
        source: SHA-256 of what they are made from.
        texts, videos: how many the source has.
        frames: frame vectors k of each video; 0 for none.
        id_bytes: length of the longest id in UTF-8.

    Raises:
        SpaceMismatchError: the folder holds a cache of another space.
        DITSError: it holds something else, a cache of another source, or somebody else is writing to it.
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
    ) -> None:
        self.folder = Path(folder)
        self.index = CacheIndex(
            space=space,
            source=source,
            frames=frames,
            id_bytes=id_bytes,
            texts=Section(total=texts, span=SHARD_VECTORS),
            videos=Section(total=videos, span=max(1, SHARD_VECTORS // (1 + frames))),
        )
        self._lock = portalocker.Lock(self.folder / LOCK, "a", timeout=0, fail_when_locked=True)

    def __enter__(self) -> CacheWriter:
        if not is_cache(self.folder):
            strange = [path.name for path in self.folder.iterdir()] if self.folder.exists() else []
            if strange := sorted(name for name in strange if name != LOCK and not name.endswith(PART)):
                raise DITSError(f"{self.folder}: holds no cache but {strange[0]}. Choose a new or empty folder.")
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
        (self.folder / LOCK).unlink(missing_ok=True)
        self._lock.release()

    def _resume(self, begun: CacheIndex) -> None:
        begun.space.require(
            self.index.space, mine=f"the cache {self.folder}", theirs="what is to be written to it"
        )
        wanted = self.index
        sizes = [(i.texts.total, i.videos.total, i.frames, i.id_bytes) for i in (begun, wanted)]
        if begun.source != wanted.source or sizes[0] != sizes[1]:
            raise DITSError(
                f"{self.folder}: was begun from other pairs or vectors than these. Choose another folder, or "
                "delete this one."
            )
        for kind in KINDS:
            shards = begun.section(kind).shards
            for place, shard in list(shards.items()):
                path = _file(self.folder, kind, place)
                if not path.is_file() or path.stat().st_size != shard.size:
                    del shards[place]
        self.index = begun

    def quarantined(self) -> list[range]:
        """Return the spans in which videos are broken."""
        numbers = np.array([broken.number for broken in self.index.quarantine], np.int64)
        spans = self.index.videos.spans()
        return [spans[place] for place in np.unique(numbers // self.index.videos.span)]

    def rows_of(self, span: range) -> int:
        """Return how many videos of a span are written."""
        shard = self.index.videos.shards.get(span.start // self.index.videos.span)
        return 0 if shard is None else shard.rows

    def videos_of(self, span: range) -> dict[str, NDArray[Any]]:
        """Read back the tensors of a span's shard; without rows where none is written."""
        columns = self.index.columns("videos")
        if not self.rows_of(span):
            return {name: np.empty((0, *row), dtype) for name, (dtype, row) in columns.items()}
        shards = _Shards(self.folder, self.index, "videos")
        return {name: np.array(shards.tensor(span.start // self.index.videos.span, name)) for name in columns}

    def write_texts(self, span: range, vectors: ArrayLike, videos: ArrayLike) -> None:
        """Write the texts of a span.

        Args:
            span: one of `index.texts.spans()`.
            vectors: (len(span), d) floats.
            videos: number of each text's video, (len(span),).

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
        self._write("texts", span, len(span), {"vector": vectors, "video": videos})

    def write_videos(
        self,
        span: range,
        numbers: ArrayLike,
        ids: Sequence[str],
        vectors: ArrayLike,
        frames: ArrayLike | None,
        broken: Sequence[Broken] = (),
    ) -> None:
        """Write the videos of a span, in place of what was written of it before.

        Args:
            span: one of `index.videos.spans()`.
            numbers: of the videos that are there, ascending, (r,).
            ids: their names.
            vectors: pooled, (r, d), unit norm.
            frames: (r, k, d), or None if the cache has none.
            broken: the others of the span.

        Raises:
            InputError: a vector that is not finite or not of unit norm, by the name of its video.
        """
        tensors: dict[str, NDArray[Any]] = {
            "number": np.asarray(numbers, np.int64),
            "id": encode_ids(ids, self.index.id_bytes),
            "vector": np.asarray(vectors, np.float32),
        }
        if frames is not None:
            tensors["frames"] = np.asarray(frames, np.float32)
        for name in ("vector", "frames"):
            if name in tensors:
                _require_direction(tensors[name], lambda row: f"video {ids[row]!r}")
        off = np.flatnonzero(np.abs(np.linalg.norm(tensors["vector"], axis=1) - 1) > UNIT_TOLERANCE)
        if len(off):
            norm = np.linalg.norm(tensors["vector"][off[0]])
            raise InputError(f"video {ids[off[0]]!r} has a vector of norm {norm:.4g}; unit norm is expected.")
        if sorted([*tensors["number"].tolist(), *(entry.number for entry in broken)]) != list(span):
            raise ValueError(f"these are not the videos {span}")
        others = [entry for entry in self.index.quarantine if entry.number not in span]
        self.index.quarantine = sorted([*others, *broken], key=lambda entry: entry.number)
        self._write("videos", span, len(tensors["number"]), tensors)

    def _write(self, kind: Kind, span: range, rows: int, tensors: dict[str, NDArray[Any]]) -> None:
        for name, (dtype, row) in self.index.columns(kind).items():
            tensor = np.ascontiguousarray(tensors[name])
            if tensor.shape != (rows, *row) or tensor.dtype != dtype:
                raise ValueError(f"{kind}, {name}: {tensor.dtype} {tensor.shape}, not {dtype} {(rows, *row)}")
            tensors[name] = tensor
        place = span.start // self.index.section(kind).span
        path = _file(self.folder, kind, place)
        part = path.with_name(path.name + PART)
        try:
            save_file(tensors, part)
            size = _finish(part, path)
        except (OSError, SafetensorError) as error:
            raise DITSError(
                f"{path}: cannot be written ({error}). What is written stays; the same command goes on from there."
            ) from error
        digests = {name: _sha256(tensor) for name, tensor in sorted(tensors.items())}
        self.index.section(kind).shards[place] = Shard(rows=rows, size=size, sha256=digests)
        self._write_index()

    def _write_index(self) -> None:
        for kind in KINDS:
            section = self.index.section(kind)
            section.shards = dict(sorted(section.shards.items()))
        self.index.checksum = self.index.expected_checksum()
        part = self.folder / (INDEX + PART)
        part.write_text(self.index.model_dump_json(indent=1) + "\n", "utf-8")
        _finish(part, self.folder / INDEX)


def _require_direction(vectors: NDArray[np.float32], name: Callable[[int], str]) -> None:
    """Refuse rows with a NaN, an infinite value, or a vector that is zero."""
    norms = np.linalg.norm(vectors, axis=-1)
    good = (norms > 0) & np.isfinite(norms)
    bad = np.flatnonzero(~good.all(axis=tuple(range(1, good.ndim))))
    if len(bad):
        what = "a zero vector" if (norms[bad[0]] == 0).any() else "NaN or infinite values"
        raise InputError(f"{name(int(bad[0]))} has {what}; remove or re-embed it.")


def _finish(part: Path, path: Path) -> int:
    """Give a written file its name once it is on the disk; return its size in bytes."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    os.replace(part, path)
    return size
