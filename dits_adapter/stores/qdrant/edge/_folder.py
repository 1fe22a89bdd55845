"""A folder of collections that Qdrant Edge, the server's engine in this process, reads and writes.

    FOLDER/qdrant-edge.lock     marks a store, and is locked by the process that has it open
    FOLDER/NAME/collection.json the configuration of the collection NAME, and its metadata
    FOLDER/NAME/optimized       exists if nothing was written since the index was built
    FOLDER/NAME/…               files of the engine: segments, and a log of the latest writes

A write returns when it is on disk: the engine alone promises that only for its log, which it does not always read
again, so every write is flushed (8 ms, however large the collection). A collection appears and disappears as a
whole. The index is built by `optimize`, and never by itself; until then new points are compared one by one.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import portalocker
import qdrant_edge as edge
from qdrant_client import models

from dits_adapter._files import sync_folder
from dits_adapter.errors import DITSError, InputError, MissingCollectionError, StoreError
from dits_adapter.stores.qdrant._schema import NAME_RULE, is_collection_name
from dits_adapter.stores.qdrant.edge import _convert as convert
from dits_adapter.stores.qdrant.edge._collection import (
    COLLECTION,
    LOCK,
    EdgeCollection,
    write_collection_config,
)

__all__ = ["GONE", "NEW", "EdgeFolder", "is_store"]

NEW, GONE = ".new", ".gone"
"""Folders of a collection that is being made or deleted; left there, they are of a process that was killed."""

_RESERVE = 64 << 20
"""Bytes left free on the disk. The engine writes through memory maps, and a process that does so on a full disk is
killed on the spot: better to stop a little earlier, with a sentence. A server keeps as much free for its log."""


def is_store(folder: Path) -> bool:
    """Return whether a folder holds a store of this kind, perhaps an empty one."""
    return (folder / LOCK).is_file()


class EdgeFolder:
    """Folder of collections, which one process at a time has open, with any number of threads.

    Args:
        folder: made if it is missing.

    Attributes:
        path: path of the folder.

    Raises:
        StoreError: another process has it open, or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._open: dict[str, EdgeCollection] = {}
        self._guard = threading.RLock()
        self._closed = False
        self._lock = portalocker.Lock(folder / LOCK, "a", timeout=0, fail_when_locked=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for leftover in (folder / NEW, folder / GONE):
                shutil.rmtree(leftover, ignore_errors=True)
        except portalocker.exceptions.LockException:
            raise StoreError(
                f"{folder} is open in another process, or elsewhere in this one, and an embedded store lets only "
                "one in. Close the other, or run a Qdrant server and give its URL."
            ) from None
        except OSError as error:
            self._lock.release()
            raise StoreError(
                f"{folder}: cannot be opened for writing ({error}), which a folder needs even to be searched. "
                "Check its permissions and the free space, or copy it elsewhere."
            ) from error

    def close(
        self,
    ) -> None:
        """Flush all writes and release the folder, after the operations of other threads."""
        with self._guard:
            self._closed = True
            while self._open:
                self._open.popitem()[1].close()
            self._lock.release()

    def names(self) -> list[str]:
        """List the collections."""
        return sorted(path.parent.name for path in self.path.glob(f"*/{COLLECTION}"))

    def exists(self, name: str) -> bool:
        """Return whether there is such a collection."""
        return _is_name(name) and (self.path / name / COLLECTION).is_file()

    def create(self, name: str, config: models.CollectionConfig) -> None:
        """Make a collection, as a whole or not at all.

        Raises:
            InputError: a name that no collection can have, or an option that only a server has.
            StoreError: there is one of this name, or the disk is full.
        """
        if not _is_name(name):
            raise InputError(
                f"a collection cannot be called {name!r}: {NAME_RULE}, and in a folder does not begin with a dot."
            )
        with self._guard, self.translate_errors(name):
            if self.exists(name):
                raise StoreError(f"{self.path} has a collection {name!r} already.")
            self.require_space()
            started = self.path / NEW
            started.mkdir()
            try:
                shard = edge.EdgeShard.create(str(started), convert.config(config))
                shard.flush()
                shard.close()
                write_collection_config(started, config)
                os.rename(started, self.path / name)
                sync_folder(self.path)
            except BaseException:
                shutil.rmtree(started, ignore_errors=True)
                raise

    def delete(self, name: str) -> bool:
        """Delete a collection; False if there is none of the name."""
        with self._guard, self.translate_errors(name):
            if not self.exists(name):
                return False
            if (collection := self._open.pop(name, None)) is not None:
                collection.close()
            os.rename(self.path / name, self.path / GONE)
            shutil.rmtree(self.path / GONE)
        return True

    @contextmanager
    def use(self, name: str, *, alone: bool = False) -> Iterator[EdgeCollection]:
        """Open a collection where it is not, and keep it open meanwhile."""
        with self.translate_errors(name):
            with self._guard:
                if self._closed:
                    raise StoreError(f"{self.path} is closed.")
                if (collection := self._open.get(name)) is None:
                    if not self.exists(name):
                        raise MissingCollectionError(f"{self.path} has no collection {name!r}.")
                    collection = self._open[name] = EdgeCollection(self.path / name)
            with collection.inside(alone=alone):
                yield collection

    def write(self, name: str, operations: Iterable[edge.UpdateOperation]) -> None:
        """Write to a collection, in the order of the operations; at the end all of them are durable."""
        with self.use(name) as collection:
            self.require_space()
            collection.unmark()
            for operation in operations:
                collection.shard.update(operation)
            collection.shard.flush()

    def require_space(self, more: int = 0, purpose: str = "") -> None:
        """Refuse to write where `_RESERVE` bytes, and `more`, are not free on the disk."""
        free = shutil.disk_usage(self.path).free
        if free < _RESERVE + more:
            raise StoreError(
                f"{self.path}: the disk is full: {free >> 20} MB are free, and {(_RESERVE + more) >> 20} MB are "
                f"needed{purpose}. Make space."
            )

    @contextmanager
    def translate_errors(self, name: str) -> Iterator[None]:
        """Turn errors of the engine into a `StoreError` that names the remedy.

        The engine raises bare Exceptions, and where it panics something that is derived from BaseException only.
        """
        try:
            yield
        except (DITSError, OSError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self.require_space()
            raise StoreError(
                f"{self.path}: the collection {name!r} cannot be opened, read or written as asked ({error}). "
                "Unless the request is at fault, its files are damaged: take them from a backup, or delete "
                f"{self.path / name} and ingest again."
            ) from error


def _is_name(name: str) -> bool:
    return is_collection_name(name) and not name.startswith(".")
