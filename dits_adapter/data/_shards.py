"""Shards of a cache: files of tensors, mapped when they are read and checked when they are first read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dits_adapter.data._cache_index import CacheIndex, Kind, shard_file, tensor_sha256
from dits_adapter.data._sharded_array import ShardedArray
from dits_adapter.errors import DITSError

__all__ = ["MAPPED", "ShardReader"]

MAPPED = 4
"""Tensors of a kind that a reader keeps mapped at a time. Mapping one again takes 0.1 ms."""


class ShardReader:
    """Reader of all shards of one kind in a cache's folder."""

    def __init__(self, folder: Path, index: CacheIndex, kind: Kind) -> None:
        self._folder = folder
        self._kind = kind
        self._section = index.section(kind)
        self._columns = index.columns(kind)
        self._checked: set[tuple[int, str]] = set()
        self._mapped = lru_cache(MAPPED)(self._map)
        rows = [shard.rows for _, shard in sorted(self._section.shards.items())]
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def require_files(self) -> None:
        """Refuse a folder in which a shard is missing or has another size than when it was written.

        Raises:
            DITSError: naming the file and the remedy.
        """
        remedy = "The command that made the cache writes it again, and nothing else."
        for place, shard in self._section.shards.items():
            path = shard_file(self._folder, self._kind, place)
            if not path.is_file():
                raise DITSError(f"{path}: this shard of the cache is missing. {remedy}")
            size = path.stat().st_size
            if size < shard.size:
                raise DITSError(f"{path}: is truncated, {size:,} of {shard.size:,} bytes. {remedy}")
            if size > shard.size:
                raise DITSError(f"{path}: has {size:,} bytes, {shard.size:,} were written. {remedy}")

    def tensor(self, place: int, name: str) -> NDArray[Any]:
        """Return a tensor of a shard, mapped.

        Raises:
            DITSError: the shard is damaged; the message names the tensor.
        """
        return self._mapped(place, name)

    def column(self, name: str, places: NDArray[np.int64] | None = None) -> ShardedArray:
        """Return a tensor of all shards as one array; with `places`, only those rows of it."""
        dtype, row_shape = self._columns[name]
        if places is None:
            places = np.arange(self._starts[-1])
        return ShardedArray(lambda place: self.tensor(place, name), self._starts[:-1], places, row_shape, dtype)

    def _map(self, place: int, name: str) -> NDArray[Any]:
        path = shard_file(self._folder, self._kind, place)
        dtype, row_shape = self._columns[name]
        shard = self._section.shards[place]
        try:
            with safe_open(path, "pt") as file:  # maps the file, where "np" would copy; and holds no descriptor
                tensor: NDArray[Any] = file.get_tensor(name).numpy()
        # The file is opened twice, by torch the second time: one that went in between is a RuntimeError.
        except (OSError, RuntimeError, SafetensorError) as error:
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
