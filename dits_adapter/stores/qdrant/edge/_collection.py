"""A collection of a folder: its shard, its config, and how it is written to disk."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as edge
from qdrant_client import models

from dits_adapter._files import write_atomically
from dits_adapter._user_files import read_json
from dits_adapter._wording import validated
from dits_adapter.errors import StoreError
from dits_adapter.stores.qdrant.edge import _convert as convert

__all__ = [
    "COLLECTION",
    "LOCK",
    "EdgeCollection",
    "size_on_disk",
    "write_collection_config",
]

LOCK, COLLECTION, _OPTIMIZED = "qdrant-edge.lock", "collection.json", "optimized"
"""Names of files."""

_FORMAT = 1


class EdgeCollection:
    """A collection's shard and its configuration. Many threads use it at once; one alone exchanges it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder)
        self.optimizing = threading.Lock()
        self._inside = self._writes = 0
        self._changed = threading.Condition()
        self._closed = False
        if not (folder / "segments").is_dir():  # the engine would start anew, with nothing in it
            raise StoreError(
                f"{folder}: the folder 'segments', which holds the points, is missing. Take it from a backup, or "
                f"delete {folder} and ingest again."
            )
        shutil.rmtree(folder / "temp_segments", ignore_errors=True)  # of an index that was never completed
        self.shard = edge.EdgeShard.load(str(folder))

    @contextmanager
    def inside(self, *, alone: bool = False) -> Iterator[None]:
        """Use the shard, together with other threads or alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside >= 0 and not (alone and self._inside))
            if self._closed:
                raise StoreError(f"{self.folder} was closed or deleted by another thread.")
            self._inside = -1 if alone else self._inside + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside = 0 if alone else self._inside - 1
                self._changed.notify_all()

    @property
    def optimized(self) -> bool:
        """True if nothing was written since the index was built, by this process or an earlier one."""
        return (self.folder / _OPTIMIZED).exists()

    def unmark(self) -> None:
        """Mark the index as out of date, before a write."""
        with self._changed:
            self._writes += 1
            (self.folder / _OPTIMIZED).unlink(missing_ok=True)

    @contextmanager
    def marking_optimized(self) -> Iterator[None]:
        """Mark the index as up to date afterwards, if nothing was written meanwhile."""
        writes = self._writes
        yield
        with self._changed:
            if self._writes == writes:
                (self.folder / _OPTIMIZED).touch()

    def reopen(self, config: models.CollectionConfig) -> None:
        """Change the configuration; the caller is inside alone."""
        converted = convert.config(config)
        self.unmark()
        self.shard.flush()
        self.shard.close()
        write_collection_config(self.folder, config)
        self.config = config
        self.shard = edge.EdgeShard.load(str(self.folder), converted)

    def close(self) -> None:
        """Flush all writes, and close the shard once no thread uses it."""
        with self.inside(alone=True):
            self._closed = True
            self.shard.flush()
            self.shard.close()


def _read_config(folder: Path) -> models.CollectionConfig:
    """Read the configuration of a collection; StoreError where it cannot be understood."""
    try:
        stored = read_json(folder / COLLECTION)
        if stored.get("format") != _FORMAT:
            raise ValueError(f"format {stored.get('format')!r}, where this version knows {_FORMAT}")
        return validated(models.CollectionConfig, stored["config"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{folder / COLLECTION} cannot be understood ({error}). A newer dits_adapter may have written it; "
            f"else take it from a backup, or delete {folder} and ingest again."
        ) from error


def write_collection_config(folder: Path, config: models.CollectionConfig) -> None:
    """Write the configuration of a collection, as a whole or not at all."""
    stored = {"format": _FORMAT, "config": config.model_dump(mode="json", exclude_none=True)}
    with write_atomically(folder / COLLECTION) as part:
        part.write_text(json.dumps(stored, indent=1), "utf-8")


def size_on_disk(folder: Path) -> int:
    """Return the bytes that the files of a folder take on disk; the engine's are full of holes."""
    files = [os.stat(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names]
    if hasattr(os.stat_result, "st_blocks"):
        return sum(file.st_blocks * 512 for file in files)
    return sum(file.st_size for file in files)
