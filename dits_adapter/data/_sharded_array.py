"""Arrays whose rows lie in several files and are read where they are indexed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError

__all__ = ["ShardedArray"]


class ShardedArray:
    """Array of the rows of several shards, which reads the rows that it is indexed with.

    An integer, a slice, an array of integers or a mask gives what NumPy would, as a copy in memory;
    `np.asarray` reads all rows.

    Args:
        read: returns the rows of a shard, given its number.
        starts: place of each shard's first row, ascending, (shards,).
        places: places of the rows that this array has, (n,).
        row_shape: shape of one row.
        dtype: dtype of the rows.

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
        """Shape: number of rows, then the shape of a row."""
        return (len(self._places), *self._row_shape)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        places = self._places[rows]
        flat = np.ravel(places)
        shards = np.searchsorted(self._starts, flat, side="right") - 1
        order = np.argsort(shards, kind="stable")  # each shard is mapped once
        result = np.empty((len(flat), *self._row_shape), self.dtype)
        for chosen in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            if len(chosen):
                shard = int(shards[chosen[0]])
                result[chosen] = self._read(shard)[flat[chosen] - self._starts[shard]]
        return result.reshape(*np.shape(places), *self._row_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise InputError("rows of several files cannot be had as one array without a copy.")
        return self[:].astype(dtype or self.dtype, copy=False)

    def select(self, rows: NDArray[np.int64]) -> ShardedArray:
        """Return some rows in their order, without reading."""
        return ShardedArray(self._read, self._starts, self._places[rows], self._row_shape, self.dtype.type)
