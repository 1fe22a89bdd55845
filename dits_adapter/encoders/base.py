"""Encoders of texts and frames: their protocol, the registry of their families, and the one loader.

A family is chosen by the `model_type` in a checkpoint's config.json, which is read before anything else: what no
family knows is refused before its weights are downloaded. docs/add-an-encoder.md shows a family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from dits_adapter._hub import download_file, resolve
from dits_adapter._user_files import read_json
from dits_adapter.encoders._families import REFUSED
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.space import Embedder
from dits_adapter.texts import TextCleaning, require_cleaning

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer
    from tokenizers import Tokenizer

__all__ = [
    "Device",
    "Encoder",
    "EncoderFamily",
    "EncoderSource",
    "TextTower",
    "TransformersEncoder",
    "load_encoder",
    "register_family",
]

Device: TypeAlias = "str | torch.device"
"""Device of torch, or `"auto"`: the first CUDA device, or the CPU where there is none."""


class Encoder(Embedder, Protocol):
    """Loaded encoder of texts and frames into one space. Arrays are float32, embeddings are not normalized.

    `Embedder` lists the rest: `name`, `revision`, `width`, `text_digest`, `video_digest`, `text_cleaning`,
    `prompt`, `preprocessing`, `clip_frames`, `embed_texts`, `preprocess` and `embed`. `count_tokens` and
    `embed_texts` clean texts as `text_cleaning` says. `preprocess` is called from several threads at a time, the
    others are not.
    """

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read (77 in CLIP); the rest is cut off."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""


class TextTower(NamedTuple):
    """Text side of an encoder, ready to be exported.

    Attributes:
        module: maps token ids (n, l), and the mask of their padding where there is one, to embeddings (n, d).
        tokenizer: truncates and pads, to the longest of a batch or always to `max_tokens`.
        max_tokens: the largest l.
        mask: the module takes the mask of padding, too; otherwise padding changes nothing, or has to be seen.
    """

    module: torch.nn.Module
    tokenizer: Tokenizer
    max_tokens: int
    mask: bool


@runtime_checkable
class TransformersEncoder(Encoder, Protocol):
    """Encoder on a model of `transformers`, which can be exported and wrapped for sentence-transformers."""

    def text_tower(self) -> TextTower:
        """Return the text side."""

    def as_transformer(self) -> Transformer:
        """Return the module of sentence-transformers around the loaded model, which is shared."""


@dataclass(frozen=True)
class EncoderFamily:
    """Family of encoders, whose checkpoints one function loads.

    Attributes:
        model_type: value of `model_type` in their config.json.
        load: function from a source and a device to the loaded encoder; it raises `ArtifactError` for what cannot
            be loaded, reads safetensors only and runs no code of the checkpoint (`trust_remote_code=False`).
        subfolder: folder of such a checkpoint inside one of sentence-transformers, if there is one.
    """

    model_type: str
    load: Callable[[EncoderSource, Device], Encoder]
    subfolder: str = ""


_FAMILIES: dict[str, EncoderFamily] = {}


def register_family(family: EncoderFamily) -> None:
    """Make a family known to `load_encoder`, in this process.

    Raises:
        InputError: another family of this `model_type` is registered.
    """
    if _FAMILIES.setdefault(family.model_type, family) != family:
        raise InputError(f"an encoder family of model_type {family.model_type!r} is registered already.")


@dataclass(frozen=True)
class EncoderSource:
    """Place of a checkpoint that a family can load.

    Attributes:
        location: local folder or hub id.
        model_type: names its family.
        revision: revision of the hub; None in a folder.
        subfolder: folder of the checkpoint inside `location`.
        text_cleaning: cleaning of texts that the encoder shall do.
    """

    location: str
    model_type: str
    revision: str | None = None
    subfolder: str = ""
    text_cleaning: TextCleaning = "none"

    @classmethod
    def find(
        cls,
        id_or_path: str | PathLike[str],
        revision: str | None = None,
        text_cleaning: TextCleaning = "none",
    ) -> EncoderSource:
        """Find a checkpoint by bundled name, local folder or hub id, in this order, and read its config.

        Of a hub repository nothing but the config is downloaded.

        Raises:
            InputError: an unknown cleaning.
            MissingExtraError: a cleaning whose package is not installed.
            ArtifactError: no config there, one of an unknown family, or a local folder with pickled weights only.
        """
        require_cleaning(text_cleaning)
        name = fspath(id_or_path)
        folder = resolve(name)
        subfolders = list(dict.fromkeys([*(family.subfolder for family in _FAMILIES.values()), ""]))
        if folder is None:
            subfolder, config = _download_config(name, subfolders, revision)
            location = name
        else:
            subfolder = next((s for s in subfolders if s and (folder / s / _CONFIG).is_file()), "")
            config, location, revision = folder / subfolder / _CONFIG, str(folder), None
        source = cls(location, _model_type(config), revision, subfolder, text_cleaning)
        place = f"{location}/{subfolder}".rstrip("/")
        if source.model_type not in _FAMILIES:
            reason = REFUSED.get(source.model_type)
            raise ArtifactError(
                f"{place}: a model of type {source.model_type!r}, which no encoder family loads"
                + (f": {reason}. Known are " if reason else "; known are ")
                + f"{', '.join(_FAMILIES)}."
            )
        if folder is not None and not any(config.parent.glob("*.safetensors")):
            raise ArtifactError(
                f"{place}: holds no safetensors. Pickled weights (.bin, .pt) are refused because loading them "
                "can run code; convert them with transformers' save_pretrained."
            )
        return source

    @property
    def name(self) -> str:
        """Name of the checkpoint in messages and records: a hub id, or a folder's own name."""
        return Path(self.location).name if Path(self.location).is_dir() else self.location

    def load(self, device: Device = "auto") -> Encoder:
        """Load the encoder; raises as `load_encoder`."""
        encoder = _FAMILIES[self.model_type].load(self, device)
        if encoder.text_cleaning != self.text_cleaning:
            raise InputError(
                f"{self.name}: text_cleaning is {self.text_cleaning!r}; encoders of type {self.model_type!r} know "
                f"{encoder.text_cleaning!r} alone."
            )
        return encoder


def load_encoder(
    id_or_path: str | PathLike[str],
    *,
    revision: str | None = None,
    device: Device = "auto",
    text_cleaning: TextCleaning = "none",
) -> Encoder:
    """Load an encoder of any registered family from safetensors, in float32.

    Args:
        id_or_path: a folder, a bundled name (`demo-clip`) or a hub id (`openai/clip-vit-large-patch14`).
        revision: branch, tag or commit of a hub repository.
        device: a torch device, or `"auto"`.
        text_cleaning: `clip` cleans texts as OpenAI's CLIP and open_clip do (`clean_texts`); `none` leaves them as
            transformers does. It is part of the space: adapters, caches and exports made with it follow it.

    Raises:
        InputError: a cleaning that is unknown, or that the family does not do.
        ArtifactError: nothing loadable is there, only pickled weights, or a checkpoint of an unknown family, whose
            weights are not downloaded then.
        MissingExtraError: a package that the family or the cleaning runs on is not installed.
    """
    return EncoderSource.find(id_or_path, revision, text_cleaning).load(device)


_CONFIG = "config.json"


def _download_config(name: str, subfolders: Sequence[str], revision: str | None) -> tuple[str, Path]:
    for subfolder in subfolders:
        try:
            return subfolder, download_file(name, f"{subfolder}/{_CONFIG}".lstrip("/"), revision)
        except ArtifactError as error:  # of the last place, where most checkpoints have it, it says why
            unavailable = error
    raise unavailable


def _model_type(config: Path) -> str:
    try:
        content: Any = read_json(config)
        return str(content["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{config.parent}: no readable config.json of an encoder, with a model_type ({error!r})."
        ) from None
