"""The folder of an artifact: found by path, bundled name or hub id."""

from __future__ import annotations

import json
from os import PathLike, fspath
from pathlib import Path

from dits_adapter.artifact.config import CONFIG, ENCODER, ONNX
from dits_adapter.errors import ArtifactError
from dits_adapter.hub import bundled
from dits_adapter.space import EmbeddingSpace

BUNDLED_FILES = (".json", ".safetensors", ".txt")
"""What a CLIP checkpoint consists of, and all that is downloaded of an artifact."""


def require_free(target: Path) -> None:
    """Refuse a folder that an artifact could not be written to, before work is done for it.

    Raises:
        ArtifactError: the folder exists and holds something else than an artifact, or is a file.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not is_artifact(target)):
        raise ArtifactError(f"{target}: is not empty and holds no adapter. Choose another folder.")


def is_artifact(folder: Path) -> bool:
    """Tell whether a local folder holds one of our artifacts (as against a CLIP checkpoint, say)."""
    try:
        return bool(json.loads((folder / CONFIG).read_text("utf-8")).get("format") == "dits_adapter")
    except (OSError, ValueError, AttributeError):
        return False


def is_exported(folder: Path) -> bool:
    """Tell whether the artifact in a local folder has an ONNX form, too."""
    return (folder / ONNX / CONFIG).is_file()


def find_artifact(id_or_path: str | PathLike[str], revision: str | None = None, *, onnx: bool = False) -> Path:
    """Return the local folder of a bundled name, a path, or a hub id (downloaded, safetensors and JSON only).

    Args:
        id_or_path: name, path or id.
        revision: of the hub.
        onnx: download its ONNX form, too.

    Raises:
        ArtifactError: a path that does not exist, or a repository that cannot be had.
    """
    name = fspath(id_or_path)
    folder = bundled(name) or Path(name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.count("/") != 1 or name.startswith((".", "~")):
        raise ArtifactError(
            f"{name}: no such folder. Give a folder with an adapter, a bundled name or a hub id (owner/name)."
        )
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"*{suffix}" for suffix in BUNDLED_FILES] + [f"{ONNX}/*"] * onnx
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises its own, httpx's and OSError
        raise ArtifactError(
            f"{name}: neither a folder here nor to be had from the hub ({type(error).__name__}: {error})"
        ) from error


def find_adapter(id_or_path: str | PathLike[str], revision: str | None = None) -> Path | None:
    """Return the local folder of a trained adapter (downloaded if need be), None where the name is not one's.

    Args:
        id_or_path: folder, bundled name or hub id.
        revision: hub revision.
    """
    name = fspath(id_or_path)
    folder = bundled(name) or Path(name)
    if folder.exists() or name.count("/") != 1:
        return folder if is_artifact(folder) else None
    from huggingface_hub import hf_hub_download

    try:
        config = Path(hf_hub_download(name, CONFIG, revision=revision))
    except Exception:  # no such repository, no config in it, no network: loading it as a CLIP says which
        return None
    return find_artifact(name, revision) if is_artifact(config.parent) else None


def find_encoder(folder: Path, space: EmbeddingSpace) -> str:
    """Return where the CLIP of an adapter is: bundled with it, with the package, beside it, or on the hub.

    Raises:
        ArtifactError: it is nowhere to be found; pass its folder as `encoder=`.
    """
    for candidate in (folder / ENCODER, bundled(space.encoder), folder.parent / space.encoder):
        if candidate is not None and (candidate / "config.json").is_file():
            return str(candidate)
    if "/" in space.encoder:
        return space.encoder
    raise ArtifactError(
        f"{folder}: was trained for the CLIP {space.encoder!r}, a folder that is neither inside nor beside it. "
        "Say where that CLIP is with encoder=PATH."
    )
