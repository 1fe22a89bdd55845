"""Folders of artifacts and of the encoders they belong to, found by path, bundled name or hub id."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dits_adapter._files import read_whole, require_writable
from dits_adapter._hub import Repository, bundled, open_repository
from dits_adapter._user_files import read_json
from dits_adapter.artifact._config import CONFIG, ENCODER, ONNX, WEIGHTS
from dits_adapter.encoders._modules import MODULES
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sides import TextSide, VideoSide

__all__ = [
    "BUNDLED_FILES",
    "find_adapter",
    "find_artifact",
    "find_encoder",
    "is_artifact",
    "is_exported",
    "require_free",
]

BUNDLED_FILES = (".json", ".safetensors", ".txt")
"""Suffixes of the files of an encoder's checkpoint, and of all that is downloaded of an artifact."""


def require_free(target: Path) -> None:
    """Refuse a folder that an artifact cannot be written to; called before the work.

    Raises:
        ArtifactError: the folder exists and holds something else than an artifact, or is a file.
        InputError: the folder that it lies in may not be written to.
    """
    if read_whole(target, lambda: _is_occupied(target)) and not is_artifact(target):
        raise ArtifactError(f"{target}: is not empty and holds no adapter. Choose another folder.")
    require_writable(target.resolve().parent)  # a link is followed when the artifact is saved


def _is_occupied(target: Path) -> bool:
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def is_artifact(folder: Path) -> bool:
    """Tell whether a local folder holds an artifact (and not an encoder, for example).

    An artifact that a killed process left on its way to the folder is put there first.

    Raises:
        ArtifactError: that cannot be done.
    """
    try:
        return read_whole(folder, lambda: bool(read_json(folder / CONFIG).get("format") == "dits_adapter"))
    except (InputError, AttributeError):
        return False


def is_exported(folder: Path) -> bool:
    """Tell whether the artifact in a local folder has an ONNX form."""
    return (folder / ONNX / CONFIG).is_file()


def find_artifact(id_or_path: str | PathLike[str], revision: str | None = None, *, onnx: bool = False) -> Path:
    """Return the local folder of an artifact; of the hub, the files that its config names are downloaded.

    Args:
        id_or_path: folder, bundled name or hub id.
        revision: revision of the hub.
        onnx: download its ONNX form, too.

    Raises:
        ArtifactError: a path where no folder is, or a repository that cannot be reached.
    """
    return _complete(open_repository(id_or_path, revision), onnx)


def find_adapter(
    id_or_path: str | PathLike[str], revision: str | None = None, *, onnx: bool = False
) -> Path | None:
    """Return the local folder of a trained adapter as `find_artifact`; None where the name is of no adapter.

    Of a hub repository that holds something else, nothing but its config is downloaded.

    Raises:
        ArtifactError: as `find_artifact`.
    """
    repository = open_repository(id_or_path, revision)
    repository.find(CONFIG)
    folder = repository.folder
    if is_artifact(folder) or (folder / WEIGHTS).is_file():  # with a damaged config, reading it says so
        return _complete(repository, onnx)
    return None


def _complete(repository: Repository, onnx: bool) -> Path:
    """Download the files of an artifact that its configs name."""
    repository.fetch([CONFIG, WEIGHTS, *[f"{ONNX}/{CONFIG}"] * onnx])
    repository.fetch(_names(repository, CONFIG, "bundle_sha256"))
    if onnx:
        repository.fetch(f"{ONNX}/{name}" for name in _names(repository, f"{ONNX}/{CONFIG}", "sha256"))
    return repository.folder


def _names(repository: Repository, config: str, field: str) -> list[str]:
    """List the files that a field of a config has digests of; none where it is damaged, as its reader will say."""
    path = repository.find(config)
    try:
        names = [] if path is None else list(read_json(path)[field])
    except (InputError, KeyError, TypeError):
        return []
    return [str(name) for name in names]


def find_encoder(folder: Path, side: TextSide | VideoSide) -> str:
    """Return the place of the encoder of one side: in the artifact or beside it, in the package, or on the hub.

    Raises:
        ArtifactError: no place has the encoder; pass the encoder's folder as `encoder=`. Or it was declared.
    """
    if side.declared:
        raise ArtifactError(f"{folder}: is for {side.noun}s of {side}, an encoder that cannot be loaded.")
    for candidate in (folder / ENCODER, bundled(side.encoder), folder.parent / side.encoder):
        if candidate is not None and any((candidate / name).is_file() for name in (CONFIG, MODULES)):
            return str(candidate)
    if "/" in side.encoder:
        return side.encoder
    raise ArtifactError(
        f"{folder}: was trained for the encoder {side.encoder!r}, a folder that is neither inside nor beside it. "
        "Put that folder beside it, or in Python say where it is with encoder=PATH."
    )
