"""Models by name: bundled with the package, in a folder, or on the Hugging Face hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundled(name: str) -> Path | None:
    """Return the folder of a model that ships with the package (`demo-clip`, `demo-dits`), else None."""
    folder = Path(str(files("dits_adapter"))) / "pretrained" / name
    return folder if "/" not in name and folder.is_dir() else None
