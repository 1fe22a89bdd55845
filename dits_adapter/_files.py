"""Files of this package: digests, and writes that are whole or do not happen."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dits_adapter.errors import ArtifactError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def require_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not, byte for byte, the one that was saved.

    Raises:
        ArtifactError: it has another digest.
    """
    if sha256(path) != expected:
        raise ArtifactError(f"{path}: was changed or damaged after it was saved.")
