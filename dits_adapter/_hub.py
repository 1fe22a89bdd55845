"""Models by name: bundled with the package, in a folder, or on the Hugging Face hub."""

from __future__ import annotations

from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path

from dits_adapter._files import read_whole
from dits_adapter.errors import ArtifactError

__all__ = ["absolute_name", "bundled", "download", "download_file", "resolve"]


def bundled(name: str) -> Path | None:
    """Return the folder of a model that ships with the package (`demo-clip`, `demo-dits`), else None."""
    folder = Path(str(files("dits_adapter"))) / "pretrained" / name
    return folder if name and "/" not in name and folder.is_dir() else None


def resolve(id_or_path: str | PathLike[str]) -> Path | None:
    """Return the local folder of a bundled name or a path, in this order; None for a hub id (`owner/name`).

    A folder that a killed process was about to replace is put back first.

    Raises:
        ArtifactError: neither: a path where no folder is.
    """
    name = fspath(id_or_path)
    path = bundled(name) or Path(name)
    if read_whole(path, path.is_dir):
        return path
    if path.exists() or path.is_absolute() or name.count("/") != 1 or name.startswith((".", "~")):
        raise ArtifactError(f"{name}: no such folder. Give a folder, a bundled name or a hub id (owner/name).")
    return None


def absolute_name(id_or_path: str | PathLike[str]) -> str:
    """Return a name that means the same in every process: a relative folder as its absolute path."""
    name = fspath(id_or_path)
    return name if bundled(name) or not Path(name).exists() else str(Path(name).absolute())


def download_file(repository: str, file: str, revision: str | None = None) -> Path:
    """Return the local copy of one file of a hub repository; from the cache where there is no network.

    Raises:
        ArtifactError: no such repository or file, or it cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # the hub client raises its own, httpx's and OSError
        raise _unavailable(f"{repository}/{file}", error) from error


def download(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    """Return the local folder of a hub repository with the files that match the patterns.

    Raises:
        ArtifactError: no such repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # likewise
        raise _unavailable(repository, error) from error


def _unavailable(name: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{name}: neither a folder here nor to be had from the hub ({type(error).__name__}: {error})"
    )
