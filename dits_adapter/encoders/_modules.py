"""Layout of a repository of sentence-transformers: the list of modules that its vectors go through."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dits_adapter._user_files import read_json
from dits_adapter._wording import printable
from dits_adapter.errors import ArtifactError

__all__ = ["MODULES", "ModuleFolder", "read_modules"]

MODULES = "modules.json"
"""Name of the file that makes a folder or repository one of sentence-transformers."""

_CHECKPOINTS = ("Transformer", "CLIPModel")
_WITH_WEIGHTS = (*_CHECKPOINTS, "Dense", "LayerNorm", "WeightedLayerPooling")
_WITHOUT_WEIGHTS = ("Pooling", "Normalize", "Dropout")


class ModuleFolder(NamedTuple):
    """Module of sentence-transformers in its folder.

    Attributes:
        kind: name of its class.
        folder: its folder inside the repository; empty for the repository itself.
    """

    kind: str
    folder: str

    @property
    def has_weights(self) -> bool:
        """True for a module with weights of its own."""
        return self.kind in _WITH_WEIGHTS

    @property
    def is_checkpoint(self) -> bool:
        """True for a model of transformers, with its tokenizer."""
        return self.kind in _CHECKPOINTS


def read_modules(path: Path) -> list[ModuleFolder]:
    """Read a modules.json.

    Raises:
        ArtifactError: it is damaged, or names a module that is not one of those whose weights are known.
    """
    try:
        content: Any = read_json(path)
        types = [(str(module["type"]), str(module.get("path", ""))) for module in content]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: is no list of modules ({error!r}).") from None
    modules = [ModuleFolder(kind.rpartition(".")[2], folder.strip("/")) for kind, folder in types]
    for (kind, _), module in zip(types, modules, strict=True):
        if not kind.startswith("sentence_transformers."):
            raise ArtifactError(
                f"{path}: names the module {printable(kind)}, which is no part of sentence-transformers. Code of "
                "a repository is never run."
            )
        if module.kind not in (*_WITH_WEIGHTS, *_WITHOUT_WEIGHTS):
            known = ", ".join((*_WITH_WEIGHTS, *_WITHOUT_WEIGHTS))
            raise ArtifactError(
                f"{path}: names a module {printable(module.kind)}; those that are loaded are {known}."
            )
    if not modules or not modules[0].is_checkpoint:
        raise ArtifactError(f"{path}: does not begin with a model of transformers, as an encoder does.")
    return modules
