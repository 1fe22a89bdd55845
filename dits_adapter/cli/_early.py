"""Checks of what a command reads and where it writes, before the seconds in which torch is imported."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_paths"]


def check_paths(
    *pairs: Path | None, adapter: str | None = None, artifact: Path | None = None, folder: Path | None = None
) -> None:
    """Refuse what is not there to be read, and where nothing can be written; None stands for an option not given.

    Args:
        pairs: caches of pairs, or files of `Pairs.save`.
        adapter: folder, bundled name or hub id of a trained adapter.
        artifact: folder for an artifact.
        folder: folder for other files.

    Raises:
        ArtifactError: no such adapter, or the folder for the artifact holds something else.
        DITSError: no such pairs, or a cache that is unfinished, incomplete or damaged.
        InputError: a folder may not be written to.
    """
    from dits_adapter._files import require_writable
    from dits_adapter._hub import open_repository
    from dits_adapter.artifact._find import require_free
    from dits_adapter.data.cache import open_cache

    if artifact is not None:
        require_free(artifact.absolute())
    if folder is not None:
        require_writable(folder)
    for path in pairs:
        if path is not None:
            open_cache(path)
    if adapter is not None:
        open_repository(adapter)
