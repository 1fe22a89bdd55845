"""Index of a cache: its files, their rows and digests, and the failures."""

from __future__ import annotations

import hashlib
import json
import operator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dits_adapter._user_files import UserFileError, read_json
from dits_adapter._wording import validated
from dits_adapter.data._ids import MOST_ID_BYTES
from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace

__all__ = [
    "INDEX",
    "KINDS",
    "CacheIndex",
    "FailedVideo",
    "Kind",
    "Section",
    "Shard",
    "is_cache",
    "read_index",
    "shard_file",
    "tensor_sha256",
]

_FORMAT_VERSION = 1

INDEX = "index.json"
"""Name of the index in a cache's folder."""

_MOST_SHARDS = 10**6

Kind = Literal["texts", "videos"]

KINDS: tuple[Kind, Kind] = ("texts", "videos")

_Column = tuple[type[np.generic], tuple[int, ...]]


class FailedVideo(BaseModel):
    """Video without vectors.

    Attributes:
        number: number of the video in its source.
        id: id of the video.
        reason: one clause saying why it has none.
        cause: digest of where the vectors were looked for; looked for elsewhere, the video is tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    id: str
    reason: str
    cause: str


class Shard(BaseModel):
    """File of a cache: its rows, its size in bytes, and the SHA-256 of each tensor's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    size: int
    sha256: dict[str, str]


class Section(BaseModel):
    """Shards of one kind.

    Attributes:
        total: texts or videos in the source.
        span: number of rows that a shard stands for; the last shard may have fewer.
        shards: those that are written, by place.
    """

    model_config = ConfigDict(extra="forbid")

    total: int = Field(ge=1, le=2**40)
    span: int = Field(ge=1)
    shards: dict[int, Shard] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _possible(self) -> Section:
        if self.total > self.span * _MOST_SHARDS:
            raise ValueError(f"{self.total} rows in shards of {self.span} are more than {_MOST_SHARDS} files")
        return self

    def spans(self) -> list[range]:
        """Return the span of rows of each shard, written or not."""
        starts = range(0, self.total, self.span)
        return [range(start, min(start + self.span, self.total)) for start in starts]

    def missing(self) -> list[range]:
        """Return the spans that are not written yet."""
        return [span for place, span in enumerate(self.spans()) if place not in self.shards]


class CacheIndex(BaseModel):
    """Contents of `index.json`; `data/cache.py` describes the format.

    Attributes:
        space: embedding space of all vectors.
        source: SHA-256 of what the vectors were made from.
        frames: frame vectors k of each video; 0 where there are none.
        id_bytes: width b of the ids.
        texts, videos: their shards.
        failures: videos without vectors.
        grouped: True where several videos are of one file.
        marked: True where texts have a source and a confidence.
        checksum: `expected_checksum` when the index was written.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["dits_adapter.cache"] = "dits_adapter.cache"
    format_version: int = _FORMAT_VERSION
    space: EmbeddingSpace
    source: str
    frames: int = Field(ge=0, le=2**20)
    id_bytes: int = Field(ge=1, le=MOST_ID_BYTES)
    texts: Section
    videos: Section
    failures: list[FailedVideo] = Field(default_factory=list)
    grouped: bool = Field(default=False, exclude_if=operator.not_)  # absent where False, as in earlier caches
    marked: bool = Field(default=False, exclude_if=operator.not_)
    checksum: str = ""

    def expected_checksum(self) -> str:
        """Return the digest of every field but `checksum` in canonical JSON."""
        content = json.dumps(self.model_dump(mode="json", exclude={"checksum"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def section(self, kind: Kind) -> Section:
        """Return the shards of a kind."""
        return self.texts if kind == "texts" else self.videos

    def columns(self, kind: Kind) -> dict[str, _Column]:
        """Return the tensors of a shard: dtype and shape of one row, by name."""
        if kind == "texts":
            marks: dict[str, _Column] = {"source": (np.uint8, ()), "confidence": (np.float32, ())}
            texts: dict[str, _Column] = {"vector": (np.float32, (self.space.text.width,)), "video": (np.int64, ())}
            return texts | (marks if self.marked else {})
        width = self.space.video.width
        columns: dict[str, _Column] = {"vector": (np.float32, (width,))}
        if self.frames:
            columns["frames"] = (np.float32, (self.frames, width))
        if self.grouped:
            columns["file"] = (np.int64, ())
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
        raw = read_json(path)
    except UserFileError as error:
        if not path.exists():
            raise DITSError(f"{folder}: holds no {INDEX}; this is no cache of vectors.") from None
        raise DITSError(f"{error} It was damaged after it was written.") from None
    if not isinstance(raw, dict) or raw.get("format") != "dits_adapter.cache":
        raise DITSError(f"{path}: is not the index of a cache (no format: dits_adapter.cache).")
    if raw.get("format_version") != _FORMAT_VERSION:
        raise DITSError(
            f"{path}: has format version {raw.get('format_version')!r}, this release reads version "
            f"{_FORMAT_VERSION}. Upgrade with: pip install -U dits-adapter"
        )
    try:
        index = validated(CacheIndex, raw)
    except InputError as error:
        raise DITSError(f"{path}: is invalid; {error}") from None
    if index.checksum != index.expected_checksum():
        raise DITSError(f"{path}: was changed or damaged after it was written.")
    return index


def shard_file(folder: Path, kind: Kind, place: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{kind}-{place:05d}.safetensors"


def tensor_sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes, 64 hex digits."""
    return hashlib.sha256(array.data).hexdigest()
