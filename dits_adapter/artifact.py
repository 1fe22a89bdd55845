"""A trained adapter on disk: `adapter.safetensors` and a `config.json` that says what it is and belongs to.

A `joint` adapter moved the embedding space, so it carries the CLIP that it was trained with in `encoder/`, and the
pooling head it was trained under in `xpool.safetensors`. `dits_adapter.export` adds `onnx/`.

What reads a config needs no torch: torch and safetensors are imported where weights are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dits_adapter.calibration import Calibration
from dits_adapter.errors import ArtifactError
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from torch import nn

    from dits_adapter.adapters import Adapter
    from dits_adapter.video.xpool import XPool

FORMAT_VERSION = 1
WEIGHTS = "adapter.safetensors"
CONFIG = "config.json"
ENCODER = "encoder"
XPOOL = "xpool.safetensors"
ONNX = "onnx"
BUNDLED_FILES = (".json", ".safetensors", ".txt")
"""What a CLIP checkpoint consists of, and all that is downloaded of an artefact."""


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
        """Digest of every field but `checksum` in canonical JSON."""
        # Without a calibration as it was before there were any: adapters of then are as intact as they were.
        left_out = {"checksum"} if self.calibration else {"checksum", "calibration"}
        content = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def require_intact(self, folder: Path) -> None:
        """Refuse a config with a byte that was changed after it was saved.

        Raises:
            ArtifactError: the checksum is not that of the fields.
        """
        if self.checksum != self.expected_checksum():
            raise ArtifactError(f"{folder / CONFIG}: was changed or damaged after it was saved.")


@dataclass
class Artifact:
    """A trained adapter with all that has to be known to use it rightly.

    Attributes:
        adapter: the trained adapter.
        space: the embedding space that it was trained in.
        training: what it was trained on and how.
        metrics: held-out retrieval figures.
        calibration: probabilities of its scores at full strength (`dits_adapter.calibration.fit_calibration`).
        encoder: of a joint adapter, the folder with the CLIP that was trained along.
        xpool: of a joint adapter, the head that pools frames under a query, to re-rank with.
    """

    adapter: Adapter
    space: EmbeddingSpace
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    encoder: Path | None = None
    xpool: XPool | None = None

    @property
    def kind(self) -> Literal["frozen", "joint"]:
        """`frozen`, or `joint` where the CLIP was trained along."""
        return "frozen" if self.encoder is None else "joint"

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write weights, config and model card; all of them or nothing.

        An artefact that is already in the folder is replaced.

        Raises:
            ArtifactError: the folder exists and holds something else than an artefact.
            OSError: it cannot be written.
        """
        target = Path(folder).absolute()
        require_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _save_weights(self.adapter, fresh / WEIGHTS)
            if self.encoder is not None:
                if self.xpool is not None:
                    _save_weights(self.xpool, fresh / XPOOL)
                (fresh / ENCODER).mkdir()
                for file in self.encoder.iterdir():
                    if file.suffix in BUNDLED_FILES:
                        shutil.copy(file, fresh / ENCODER)
            config = ArtifactConfig(
                kind=self.kind,
                adapter=self.adapter.kind,
                config=self.adapter.config.model_dump(mode="json"),
                space=self.space,
                training=self.training,
                metrics=self.metrics,
                calibration=self.calibration,
                weights_sha256=sha256(fresh / WEIGHTS),
                bundle_sha256={name: sha256(fresh / name) for name in _bundle(fresh)},
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
        from dits_adapter.adapters import ADAPTERS
        from dits_adapter.video.xpool import XPool

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
        require_sha256(folder / WEIGHTS, config.weights_sha256)
        config.require_intact(folder)
        artifact = cls(adapter.eval(), config.space, config.training, config.metrics, config.calibration)
        if config.kind == "joint":
            _check_bundle(folder, config)
            artifact.encoder = folder / ENCODER
            if XPOOL in config.bundle_sha256:
                artifact.xpool = XPool(config.space.width).eval()
                _load_weights(folder / XPOOL, artifact.xpool)
        return artifact


def bundled(name: str) -> Path | None:
    """Return the folder of a model that ships with the package (`demo-clip`, `demo-dits`), else None."""
    folder = Path(str(files("dits_adapter"))) / "pretrained" / name
    return folder if "/" not in name and folder.is_dir() else None


def require_free(target: Path) -> None:
    """Refuse a folder that an artefact could not be written to, before work is done for it.

    Raises:
        ArtifactError: the folder exists and holds something else than an artefact, or is a file.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not is_artifact(target)):
        raise ArtifactError(f"{target}: is not empty and holds no adapter. Choose another folder.")


def is_artifact(folder: Path) -> bool:
    """Tell whether a local folder holds one of our artefacts (as against a CLIP checkpoint, say)."""
    try:
        return bool(json.loads((folder / CONFIG).read_text("utf-8")).get("format") == "dits_adapter")
    except (OSError, ValueError, AttributeError):
        return False


def is_exported(folder: Path) -> bool:
    """Tell whether the artefact in a local folder has an ONNX form, too."""
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


def _bundle(folder: Path) -> list[str]:
    """List the files of an artefact that only a joint one has, relative to its folder."""
    files = [*folder.glob(XPOOL), *folder.glob(f"{ENCODER}/*")]
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _check_bundle(folder: Path, config: ArtifactConfig) -> None:
    """Refuse a joint artefact whose bundled files are not, byte for byte, those that were saved."""
    there, expected = _bundle(folder), config.bundle_sha256
    if missing := sorted({f"{ENCODER}/config.json", *expected} - {*there}):
        raise ArtifactError(f"{folder / missing[0]}: is missing; a joint adapter does not work without.")
    if extra := sorted({*there} - expected.keys()):
        raise ArtifactError(f"{folder / extra[0]}: is no part of the adapter that was saved; remove it.")
    for name, digest in expected.items():
        require_sha256(folder / name, digest)


def _save_weights(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    path.touch()  # with the permissions of any new file; safetensors would make one for its owner alone
    mode = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    path.chmod(mode)


def _load_weights(path: Path, module: nn.Module) -> None:
    """Copy a weight file into a module, refusing tensors that are missing, extra or misshapen."""
    from safetensors import SafetensorError, safe_open

    expected = module.state_dict()
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
            module.load_state_dict({name: file.get_tensor(name) for name in expected})
    except SafetensorError as error:
        raise ArtifactError(f"{path}: is no intact safetensors file ({error}).") from None


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


def model_card(config: ArtifactConfig, name: str) -> str:
    """Write the README.md of an artefact: what it is, how to use it, what was measured."""
    from huggingface_hub import ModelCard, ModelCardData

    base = str(config.training.get("base_model", config.space.encoder))
    data = ModelCardData(
        library_name="dits_adapter",
        tags=["video-retrieval", "text-to-video", "modality-gap", "clip", config.adapter],
        base_model=base if "/" in base else None,
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

## Probabilities of scores
{config.calibration or "not calibrated: `dits-adapter calibrate`"}
"""
    return str(ModelCard(content))
