"""Config of an artifact: definition of the adapter, its embedding space, its record and checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dits_adapter._user_files import UserFileError, read_json
from dits_adapter._wording import validated
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.space import EmbeddingSpace

__all__ = ["CONFIG", "ENCODER", "FORMAT_VERSION", "ONNX", "WEIGHTS", "XPOOL", "ArtifactConfig", "read_config"]

FORMAT_VERSION = 1
"""Version of the layout of an artifact that this release writes and reads."""

WEIGHTS, CONFIG, ENCODER, XPOOL, ONNX = (
    "adapter.safetensors",
    "config.json",
    "encoder",
    "xpool.safetensors",
    "onnx",
)
"""Names of an artifact's files and folders."""


class ArtifactConfig(BaseModel):
    """Contents of an artifact's `config.json`.

    Attributes:
        format: always `dits_adapter`.
        format_version: version of this layout.
        kind: `frozen` (encoder untouched, the stored index stays) or `joint` (encoder trained along).
        adapter: kind of a registered adapter (`dits_adapter.adapters.adapter_class`).
        config: that adapter's own config.
        space: the embedding space that it was trained in.
        training: record of its training, for people and for later comparisons.
        metrics: held-out retrieval figures by name of the split.
        calibration: probabilities of its scores at full strength; None where it was not calibrated.
        weights_sha256: digest of the weight file.
        bundle_sha256: digests of the other files of a joint adapter (encoder and X-Pool head) by relative path.
        checksum: digest of all fields above, so that no byte changes unnoticed.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["dits_adapter"] = "dits_adapter"
    format_version: int = FORMAT_VERSION
    kind: Literal["frozen", "joint"] = "frozen"
    adapter: str
    config: dict[str, Any]
    space: EmbeddingSpace
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    calibration: Calibration | None = None
    weights_sha256: str
    bundle_sha256: dict[str, str] = Field(default_factory=dict)
    checksum: str = ""

    def expected_checksum(self) -> str:
        """Return the digest of every field but `checksum` in canonical JSON."""
        content = json.dumps(self.model_dump(mode="json", exclude={"checksum"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_config(folder: Path) -> ArtifactConfig:
    """Read an artifact's config without its weights.

    Raises:
        ArtifactError: no artifact, a pickled one, an unknown version, or an invalid or changed config.
    """
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"})
        if pickled:
            raise ArtifactError(
                f"{folder}: {pickled[0]} is pickled; loading it could run code. Only {WEIGHTS} is accepted."
            )
        raise ArtifactError(f"{folder}: holds no {WEIGHTS}; this is not a saved adapter.")
    try:
        raw = read_json(folder / CONFIG)
    except UserFileError as error:
        if not (folder / CONFIG).exists():
            raise ArtifactError(f"{folder}: holds no {CONFIG}; this is not a saved adapter.") from None
        raise ArtifactError(str(error)) from None
    if not isinstance(raw, dict) or raw.get("format") != "dits_adapter":
        raise ArtifactError(f"{folder / CONFIG}: is not the config of an adapter (no format: dits_adapter).")
    if raw.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder / CONFIG}: has format version {raw.get('format_version')!r}, this release reads version "
            f"{FORMAT_VERSION}. Upgrade with: pip install -U dits-adapter"
        )
    try:
        config = validated(ArtifactConfig, raw)
    except InputError as error:
        raise ArtifactError(f"{folder / CONFIG}: is invalid; {error}") from None
    if config.checksum != config.expected_checksum():
        raise ArtifactError(f"{folder / CONFIG}: was changed or damaged after it was saved.")
    return config
