"""A trained adapter on disk: `adapter.safetensors` and a `config.json` that says what it is and belongs to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dits_adapter.adapters import ADAPTERS, Adapter
from dits_adapter.clip import bundled
from dits_adapter.errors import ArtifactError
from dits_adapter.space import EmbeddingSpace

FORMAT_VERSION = 1
WEIGHTS = "adapter.safetensors"
CONFIG = "config.json"


class ArtifactConfig(BaseModel):
    """Contents of an artefact's `config.json`.

    Attributes:
        format: always `dits_adapter`.
        format_version: version of this layout.
        kind: `frozen` (CLIP untouched, the stored index stays) or `joint` (CLIP trained along).
        adapter: a key of `dits_adapter.adapters.ADAPTERS`.
        config: that adapter's own config.
        space: the embedding space that it was trained in.
        training: what it was trained on and how, for people and for later comparisons.
        metrics: held-out retrieval figures by name of the split.
        weights_sha256: digest of the weight file.
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
    weights_sha256: str
    checksum: str = ""

    def expected_checksum(self) -> str:
        """Digest of every field but `checksum` in canonical JSON."""
        content = json.dumps(self.model_dump(mode="json", exclude={"checksum"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass
class Artifact:
    """A trained adapter with all that has to be known to use it rightly."""

    adapter: Adapter
    space: EmbeddingSpace
    kind: Literal["frozen", "joint"] = "frozen"
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write weights, config and model card; all of them or nothing.

        An artefact that is already in the folder is replaced.

        Raises:
            ArtifactError: the folder exists and holds something else than an artefact.
            OSError: it cannot be written.
        """
        target = Path(folder).absolute()
        if target.exists() and any(target.iterdir()) and not is_artifact(target):
            raise ArtifactError(f"{target}: is not empty and holds no adapter. Choose another folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            weights = {name: tensor.contiguous() for name, tensor in self.adapter.state_dict().items()}
            save_file(weights, fresh / WEIGHTS)
            config = ArtifactConfig(
                kind=self.kind,
                adapter=self.adapter.kind,
                config=self.adapter.config.model_dump(mode="json"),
                space=self.space,
                training=self.training,
                metrics=self.metrics,
                weights_sha256=_sha256(fresh / WEIGHTS),
            )
            config.checksum = config.expected_checksum()
            (fresh / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
            (fresh / "README.md").write_text(model_card(config, target.name), "utf-8")
            fresh.chmod(0o755)
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
                os.replace(target, old / target.name)
                os.replace(fresh, target)
                shutil.rmtree(old)
            else:
                os.replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target

    @classmethod
    def load(cls, id_or_path: str | PathLike[str], *, revision: str | None = None) -> Artifact:
        """Load an artefact from a folder, by a bundled name (`demo-dits`) or from the hub, fully checked.

        Raises:
            ArtifactError: it is no artefact, of an unknown version, pickled, damaged, or its tensors are not
                those of its config; the message says which.
        """
        folder = find_artifact(id_or_path, revision)
        config = read_config(folder)
        if config.adapter not in ADAPTERS:
            raise ArtifactError(
                f"{folder}: adapter {config.adapter!r} is unknown; known are {', '.join(ADAPTERS)}."
            )
        adapter_class = ADAPTERS[config.adapter]
        try:
            adapter = adapter_class(adapter_class.Config.model_validate(config.config))
        except ValidationError as error:
            raise ArtifactError(f"{folder / CONFIG}: the adapter's config is invalid. {error}") from None
        if adapter.width != config.space.width:
            raise ArtifactError(
                f"{folder}: the adapter has width {adapter.width}, but its space has {config.space.width}."
            )
        _load_weights(folder / WEIGHTS, adapter)
        if _sha256(folder / WEIGHTS) != config.weights_sha256:
            raise ArtifactError(f"{folder / WEIGHTS}: was changed or damaged after it was saved.")
        if config.checksum != config.expected_checksum():
            raise ArtifactError(f"{folder / CONFIG}: was changed or damaged after it was saved.")
        return cls(adapter.eval(), config.space, config.kind, config.training, config.metrics)


def is_artifact(folder: Path) -> bool:
    """Tell whether a local folder holds one of our artefacts (as against a CLIP checkpoint, say)."""
    try:
        return bool(json.loads((folder / CONFIG).read_text("utf-8")).get("format") == "dits_adapter")
    except (OSError, ValueError, AttributeError):
        return False


def find_artifact(id_or_path: str | PathLike[str], revision: str | None = None) -> Path:
    """Return the local folder of a bundled name, a path, or a hub id (downloaded, safetensors and JSON only).

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
        patterns = ["*.json", "*.txt", "*.safetensors"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises its own, httpx's and OSError
        raise ArtifactError(
            f"{name}: neither a folder here nor to be had from the hub ({type(error).__name__}: {error})"
        ) from error


def read_config(folder: Path) -> ArtifactConfig:
    """Read an artefact's config without its weights.

    Raises:
        ArtifactError: no artefact, a pickled one, an unknown version, or an invalid config.
    """
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"})
        if pickled:
            raise ArtifactError(
                f"{folder}: {pickled[0]} is pickled; loading it could run code. Only {WEIGHTS} is accepted."
            )
        raise ArtifactError(f"{folder}: holds no {WEIGHTS}; this is not a saved adapter.")
    try:
        raw = json.loads((folder / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: holds no {CONFIG}; this is not a saved adapter.") from None
    except ValueError as error:
        raise ArtifactError(f"{folder / CONFIG}: is not valid JSON ({error}).") from None
    if not isinstance(raw, dict) or raw.get("format") != "dits_adapter":
        raise ArtifactError(f"{folder / CONFIG}: is not the config of an adapter (no format: dits_adapter).")
    if raw.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder / CONFIG}: has format version {raw.get('format_version')!r}, this release reads version "
            f"{FORMAT_VERSION}. Upgrade with: pip install -U dits-adapter"
        )
    try:
        return ArtifactConfig.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(f"{folder / CONFIG}: is invalid. {error}") from None


def _load_weights(path: Path, adapter: Adapter) -> None:
    """Copy a weight file into the adapter, refusing tensors that are missing, extra or misshapen."""
    expected = adapter.state_dict()
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if missing := sorted(expected.keys() - shapes.keys()):
                raise ArtifactError(f"{path}: {len(missing)} tensors are missing, the first is {missing[0]}.")
            if extra := sorted(shapes.keys() - expected.keys()):
                raise ArtifactError(f"{path}: {len(extra)} tensors are unknown, the first is {extra[0]}.")
            for name, tensor in expected.items():
                if shapes[name] != tuple(tensor.shape):
                    raise ArtifactError(
                        f"{path}: {name} has shape {shapes[name]}, the config says {tuple(tensor.shape)}."
                    )
            adapter.load_state_dict({name: file.get_tensor(name) for name in expected})
    except SafetensorError as error:
        raise ArtifactError(f"{path}: is no intact safetensors file ({error}).") from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_card(config: ArtifactConfig, name: str) -> str:
    """Write the README.md of an artefact: what it is, how to use it, what was measured."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name="dits_adapter",
        tags=["video-retrieval", "text-to-video", "modality-gap", "clip", config.adapter],
        base_model=config.space.encoder if "/" in config.space.encoder else None,
    )
    facts = "\n".join(f"- {key}: {value}" for key, value in config.training.items()) or "- not recorded"
    rows = "\n".join(f"- {key}: {value}" for key, value in config.metrics.items()) or "- none recorded"
    weights = "stays as it is" if config.kind == "frozen" else "must be built with the bundled encoder"
    content = f"""---
{data.to_yaml()}
---
# {name}

Moves text queries of the CLIP `{config.space.encoder}` to the video side of its embedding space before they
search video vectors. Adapter `{config.adapter}`, kind `{config.kind}`: the index of videos {weights}.

```python
from dits_adapter import DITSQueryEncoder

encoder = DITSQueryEncoder.from_pretrained("{name}")
vectors = encoder.encode_query(["a dog chases a ball"])
```

Embedding space: {config.space}, weights {config.space.weights_sha256}.

## Training
{facts}

## Held-out figures
{rows}
"""
    return str(ModelCard(content))
