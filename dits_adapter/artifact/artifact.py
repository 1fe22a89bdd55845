"""Artifact: a trained adapter on disk, `adapter.safetensors` with a `config.json` that describes it.

A `joint` adapter moved the embedding space, so it carries the encoder that it was trained with in `encoder/`, and
the pooling head it was trained under in `xpool.safetensors`. `dits_adapter.backends._onnx_export` adds `onnx/`.

Configs are read without torch: torch and safetensors are imported where weights are read or written.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dits_adapter._files import read_whole, replace_folder, require_sha256, sha256
from dits_adapter._reprs import short_repr
from dits_adapter._wording import validated
from dits_adapter.artifact._card import model_card
from dits_adapter.artifact._config import CONFIG, ENCODER, WEIGHTS, XPOOL, ArtifactConfig, read_config
from dits_adapter.artifact._find import BUNDLED_FILES, find_artifact, require_free
from dits_adapter.artifact._weights import load_weights, require_tensors, save_weights
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from torch import nn

    from dits_adapter.adapters.base import Adapter
    from dits_adapter.xpool import XPool

__all__ = ["Artifact"]

_logger = logging.getLogger(__name__)


@dataclass
class Artifact:
    """Trained adapter with its embedding space, its calibration and the record of its training.

    Attributes:
        adapter: the trained adapter.
        space: the embedding space that it was trained in.
        training: record of its training, by name: data, recipe, base model.
        metrics: held-out retrieval figures.
        calibration: probabilities of its scores at full strength (`fit_calibration`).
        encoder: folder of the encoder that was trained along, for a joint adapter.
        xpool: head that pools frames under a query, to re-rank with, for a joint adapter.
        digest: checksum of the config that it was loaded from; "" for one that was not.
    """

    adapter: Adapter
    space: EmbeddingSpace
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    encoder: Path | None = None
    xpool: XPool | None = None
    digest: str = field(default="", init=False, compare=False)  # a copy with another adapter has none

    def __repr__(self) -> str:
        calibrated = "yes" if self.calibration is not None else "no"
        return short_repr(self, self.adapter, kind=self.kind, space=str(self.space), calibrated=calibrated)

    @classmethod
    def plain(cls, space: EmbeddingSpace) -> Artifact:
        """Return the artifact of queries that do not move.

        Raises:
            InputError: texts and videos of the space lie in two spaces.
        """
        from dits_adapter.adapters import AffineAdapter, AffineConfig

        space.require_shared()
        return cls(AffineAdapter(AffineConfig(width=space.text.width)).eval(), space)

    @property
    def kind(self) -> Literal["frozen", "joint"]:
        """`frozen`, or `joint` where the encoder was trained along."""
        return "frozen" if self.encoder is None else "joint"

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write weights, config and model card; all of them or nothing.

        An artifact that is already in the folder is replaced, in one step where the system can do that: whoever
        reads the folder meanwhile, and whoever finds it after a kill or a power cut, has one of the two, whole.

        Raises:
            ArtifactError: the folder exists and holds something else than an artifact.
            OSError: the folder cannot be written.
        """
        with self.saving(folder):
            pass
        return Path(folder).absolute()

    @contextmanager
    def saving(self, folder: str | PathLike[str]) -> Iterator[Path]:
        """Save as `save`, together with what the block adds to the folder that it is given.

        Yields:
            Folder with the artifact's files, which takes its place when the block ends without an error.

        Raises:
            ArtifactError, OSError: as `save`.
        """
        target = Path(folder).absolute()
        require_free(target)
        with replace_folder(target) as fresh:
            self._write(fresh, target.name)
            yield fresh

    def _write(self, fresh: Path, name: str) -> None:
        save_weights(self.adapter, fresh / WEIGHTS)
        if self.encoder is not None:
            if self.xpool is not None:
                save_weights(self.xpool, fresh / XPOOL)
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
        (fresh / "README.md").write_text(model_card(config, name), "utf-8")

    @classmethod
    def load(cls, id_or_path: str | PathLike[str], *, revision: str | None = None) -> Artifact:
        """Load an artifact from a folder, by a bundled name (`demo-dits`) or from the hub, fully checked.

        All of it is of one save, also where another process saves to the folder meanwhile.

        Raises:
            ArtifactError: no artifact, an unknown version, pickled or damaged weights, or tensors that are not
                those of its config; the message says which.
        """
        folder = find_artifact(id_or_path, revision)
        _logger.info("loading the adapter in %s", folder)
        return read_whole(folder, lambda: cls._read(folder))

    @classmethod
    def _read(cls, folder: Path) -> Artifact:
        from dits_adapter.adapters import adapter_class
        from dits_adapter.xpool import XPool

        config = read_config(folder)
        try:
            kind: Any = adapter_class(config.adapter)
            definition = validated(kind.Config, config.config, at="config.")
            _require_claimed(folder / WEIGHTS, lambda: kind(definition))
            require_sha256(folder / WEIGHTS, config.weights_sha256)
            adapter: Adapter = kind(definition)
        except InputError as error:
            raise ArtifactError(f"{folder / CONFIG}: the adapter's config is invalid; {error}") from None
        widths, sides = (adapter.text_width, adapter.width), (config.space.text.width, config.space.video.width)
        if widths != sides:
            raise ArtifactError(
                f"{folder}: the adapter leads from width {widths[0]} to {widths[1]}, but its texts and videos "
                f"have {sides[0]} and {sides[1]}."
            )
        load_weights(folder / WEIGHTS, adapter)
        artifact = cls(adapter.eval(), config.space, config.training, config.metrics, config.calibration)
        artifact.digest = config.checksum
        if config.kind == "joint":
            _check_bundle(folder, config)
            artifact.encoder = folder / ENCODER
            if XPOOL in config.bundle_sha256:
                _require_claimed(folder / XPOOL, lambda: XPool(config.space.video.width))
                artifact.xpool = XPool(config.space.video.width).eval()
                load_weights(folder / XPOOL, artifact.xpool)
        return artifact


def _require_claimed(weights: Path, build: Callable[[], nn.Module]) -> None:
    """Refuse a config that claims other tensors than there are, before memory is taken for them."""
    import torch

    try:
        with torch.device("meta"):
            claimed = build()
    except (ArtifactError, InputError):
        raise
    except Exception:  # an adapter of somebody else that computes with its initial values, which "meta" lacks
        return
    require_tensors(weights, claimed)


def _bundle(folder: Path) -> list[str]:
    """List the files of an artifact that only a joint one has, relative to its folder."""
    files = [*folder.glob(XPOOL), *folder.glob(f"{ENCODER}/*")]
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _check_bundle(folder: Path, config: ArtifactConfig) -> None:
    """Refuse a joint artifact whose bundled files are not, byte for byte, those that were saved."""
    present, expected = {*_bundle(folder)}, config.bundle_sha256
    if missing := sorted({f"{ENCODER}/config.json", *expected} - present):
        raise ArtifactError(f"{folder / missing[0]}: is missing; a joint adapter does not work without.")
    if extra := sorted(present - expected.keys()):
        raise ArtifactError(f"{folder / extra[0]}: is no part of the adapter that was saved; remove it.")
    for name, digest in expected.items():
        require_sha256(folder / name, digest)
