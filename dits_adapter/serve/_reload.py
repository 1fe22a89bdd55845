"""`Reloader`: an adapter whose folder is replaced is served without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dits_adapter._files import read_whole
from dits_adapter.artifact._config import read_config
from dits_adapter.artifact._find import is_artifact
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import DITSError
from dits_adapter.serve._searcher import Searcher

__all__ = ["Reloader"]

_SECONDS = 5.0
"""Time between two looks at the folder."""

_logger = logging.getLogger(__name__)


class Reloader:
    """Keeper of the searcher in use, which takes up another adapter when its folder is replaced.

    `dits-adapter train --promote-if-better` replaces the folder in one step. The new adapter is loaded beside the
    old one, checked, and takes its place between two requests; those that are under way end with the old one. An
    adapter that cannot be loaded, or is of another embedding space, is refused with a warning in the log, and the
    old one stays. Bundled adapters and those of a hub are never replaced.

    Args:
        searcher: the first one.

    Attributes:
        searcher: the one in use.
        outcomes: how many adapters were "taken_up", and how many "refused".
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.outcomes = {"taken_up": 0, "refused": 0}
        name = searcher.encoder.name_or_path
        folder = None if name is None else Path(name)
        self._folder = folder if folder is not None and folder.is_absolute() and is_artifact(folder) else None
        self._tried: list[tuple[str, int, int, int]] = []
        self._stopped = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the folder every few seconds, in a thread, while the block runs."""
        thread = None
        if self._folder is not None:
            thread = threading.Thread(target=self._watch, name="adapter-reload", daemon=True)
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            if thread is not None:
                thread.join(1)  # it may be loading an adapter, which nobody waits for

    def check(self) -> bool:
        """Load the adapter that is in the folder now; return whether it is another one than before."""
        folder, before = self._folder, self.searcher.encoder
        if folder is None or (state := _state(folder)) == self._tried:
            return False
        self._tried = state  # one that cannot be used is tried again when a file of it changes
        try:
            if read_whole(folder, lambda: read_config(folder).checksum) == before.artifact.digest:
                return False
            encoder = DITSQueryEncoder.from_pretrained(folder, **before.options)
            encoder.load()
            before.space.require(encoder.space, mine="the adapter in use", theirs="the new one")
        except (DITSError, OSError) as error:
            self.outcomes["refused"] += 1
            _logger.warning("%s is not taken up, the old adapter stays in use: %s", folder, error)
            return False
        self.searcher = Searcher(self.searcher.store, encoder)
        self.outcomes["taken_up"] += 1
        _logger.warning("%s was replaced; the new adapter is in use", folder)
        return True

    def _watch(self) -> None:
        while not self._stopped.wait(_SECONDS):
            self.check()


def _state(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return what tells whether any file of a folder has changed."""
    state = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # it was removed meanwhile
            status = path.stat()
            state.append((str(path), status.st_ino, status.st_mtime_ns, status.st_size))
    return sorted(state)
