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

_WITHOUT_WEIGHTS = {"Pooling", "Normalize", "Dropout", "Router"}


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
        return self.kind not in _WITHOUT_WEIGHTS


def read_modules(path: Path) -> list[ModuleFolder]:
    """Read a modules.json.

    Raises:
        ArtifactError: it is damaged, or names a module whose code is not that of sentence-transformers.
    """
    try:
        content: Any = read_json(path)
        types = [(str(module["type"]), str(module.get("path", ""))) for module in content]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: is no list of modules ({error!r}).") from None
    for kind, _ in types:
        if not kind.startswith("sentence_transformers."):
            raise ArtifactError(
                f"{path}: names the module {printable(kind)}, which is no part of sentence-transformers. Code of "
                "a repository is never run."
            )
    if not types:
        raise ArtifactError(f"{path}: names no module.")
    return [ModuleFolder(kind.rpartition(".")[2], folder.strip("/")) for kind, folder in types]
