"""Encoders of texts and frames: their protocol, the registry of their families, and the one loader.

A family is chosen by the `model_type` in a checkpoint's config.json, which is read before anything else: what no
family knows is refused before its weights are downloaded. docs/add-an-encoder.md shows a family.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from typing_extensions import TypeIs

from dits_adapter._embedders import TextEmbedder, VideoEmbedder
from dits_adapter._hub import Repository, open_repository
from dits_adapter._user_files import read_json
from dits_adapter._wording import printable
from dits_adapter.encoders._families import REFUSED
from dits_adapter.encoders._modules import MODULES, ModuleFolder, read_modules
from dits_adapter.encoders._weight_files import fetch_weights
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.texts import TextCleaning, require_cleaning

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer
    from tokenizers import Tokenizer

__all__ = [
    "CHECKPOINT_FILES",
    "SENTENCE_TRANSFORMERS",
    "Device",
    "Encoder",
    "EncoderFamily",
    "EncoderSource",
    "FromSource",
    "TextEncoder",
    "TextTower",
    "TransformersEncoder",
    "embeds_videos",
    "load_encoder",
    "load_text_encoder",
    "register_family",
]

_logger = logging.getLogger(__name__)

Device: TypeAlias = "str | torch.device"
"""Device of torch, or `"auto"`: the first CUDA device, or the CPU where there is none."""


class TextEncoder(TextEmbedder, Protocol):
    """Loaded encoder of texts. Arrays are float32, embeddings are not normalized.

    `TextEmbedder` lists the rest: `name`, `revision`, `width`, `text_digest`, `text_cleaning`, `prompt` and
    `embed_texts`. `count_tokens` and `embed_texts` clean texts as `text_cleaning` says.
    """

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read (77 in CLIP); the rest is cut off."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""


class Encoder(TextEncoder, VideoEmbedder, Protocol):
    """Loaded encoder of texts and frames into one space.

    `TextEncoder` is its side of texts; `VideoEmbedder` lists `video_digest`, `preprocessing`, `clip_frames`,
    `preprocess` and `embed`. `preprocess` is called from several threads at a time, the others are not.
    """


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


SENTENCE_TRANSFORMERS = "sentence-transformers"
"""Model type of the family of repositories whose vectors go through several modules of sentence-transformers."""

_CONFIG = "config.json"
_PROMPTS = "config_sentence_transformers.json"

CHECKPOINT_FILES = (
    _CONFIG,
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files beside the weights in which models of transformers keep their config, tokenizer and processors."""


@dataclass(frozen=True)
class EncoderFamily:
    """Family of encoders, whose checkpoints one function loads.

    Attributes:
        model_type: value of `model_type` in their config.json.
        load: function from a source, whose `folder` holds the checkpoint, and a device to the loaded encoder; to a
            `TextEncoder`, where it embeds texts alone. It raises `ArtifactError` for what cannot be loaded, reads
            safetensors only and runs no code of the checkpoint (`trust_remote_code=False`).
        files: files of a checkpoint beside its weights, those that it may lack included; no other is downloaded.
        weights: file of the weights, which may be split into several by `{weights}.index.json`.
        config: file that only checkpoints of this family have, where they lack a config.json with a `model_type`.
        examples: hub ids that keep safetensors on main, to be named to whom has one that does not.
    """

    model_type: str
    load: Callable[[EncoderSource, Device], TextEncoder]
    files: Sequence[str] = CHECKPOINT_FILES
    weights: str = "model.safetensors"
    config: str = _CONFIG
    examples: Sequence[str] = ()


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
        name: name of the checkpoint in messages and records: a hub id, or a folder's own name.
        location: local folder; for a hub id that of the commit in the hub's cache.
        model_type: names its family.
        revision: full hash of the hub's commit; None for a folder.
        modules: modules of a repository of sentence-transformers; empty for any other.
        text_cleaning: cleaning of texts that the encoder shall do.
    """

    name: str
    location: str
    model_type: str
    revision: str | None = None
    modules: tuple[ModuleFolder, ...] = ()
    text_cleaning: TextCleaning = "none"

    @classmethod
    def find(
        cls,
        id_or_path: str | PathLike[str],
        revision: str | None = None,
        text_cleaning: TextCleaning = "none",
    ) -> EncoderSource:
        """Find a checkpoint by bundled name, local folder or hub id, in this order, and read its config.

        Of a hub repository nothing but its configs is downloaded.

        Raises:
            InputError: an unknown cleaning.
            MissingExtraError: a cleaning whose package is not installed.
            ArtifactError: no config there, or one of an unknown family.
        """
        require_cleaning(text_cleaning)
        repository = open_repository(id_or_path, revision)
        model_type, modules = _identify(repository)
        if model_type not in _FAMILIES:
            reason = REFUSED.get(model_type)
            raise ArtifactError(
                f"{id_or_path}: a model of type {printable(model_type)!r}, which no encoder family loads"
                + (f": {reason}. Known are " if reason else "; known are ")
                + f"{', '.join(_FAMILIES)}."
            )
        return cls(
            repository.name, str(repository.folder), model_type, repository.commit, tuple(modules), text_cleaning
        )

    @property
    def folder(self) -> Path:
        """Folder of the checkpoint, which `load` completes before the family reads it.

        In a repository of sentence-transformers that of the first module.
        """
        return Path(self.location, self.modules[0].folder if self.modules else "")

    def load(self, device: Device = "auto") -> TextEncoder:
        """Load the encoder; raises as `load_text_encoder`."""
        family = _FAMILIES[self.model_type]
        started = time.monotonic()
        self._complete(family)
        encoder = family.load(self, device)
        _logger.info("loaded the encoder %s in %.1f s", self.name, time.monotonic() - started)
        if encoder.text_cleaning != self.text_cleaning:
            raise InputError(
                f"{self.name}: text_cleaning is {self.text_cleaning!r}; encoders of type {self.model_type!r} know "
                f"{encoder.text_cleaning!r} alone."
            )
        return encoder

    def _complete(self, family: EncoderFamily) -> None:
        """Download the files that the family reads; weights last, so that a cache with these has the others."""
        repository = open_repository(self.location if self.revision is None else self.name, self.revision)
        modules = self.modules or (ModuleFolder("Transformer", ""),)
        repository.fetch(
            _inside(module.folder, file)
            for module in modules
            for file in (family.files if module.is_checkpoint else (_CONFIG,))
        )
        if self.modules:
            repository.fetch([_PROMPTS])
        for module in modules:
            if module.has_weights and not fetch_weights(repository, _inside(module.folder, family.weights)):
                place = _inside(self.name, module.folder) if module.folder else self.name
                raise ArtifactError(
                    f"{place}: holds no safetensors. Pickled weights (.bin, .pt) are refused because loading them "
                    f"can run code. {_ways_out(self, family)}"
                )


def _ways_out(source: EncoderSource, family: EncoderFamily) -> str:
    if source.revision is None:
        return "Convert them with transformers' save_pretrained."
    ids = f"Of this family {', '.join(family.examples)} have safetensors. " if family.examples else ""
    return (
        f"{ids}Where a pull request of the repository adds them, and you have read it, name it: "
        f"{source.name}@refs/pr/NUMBER."
    )


class FromSource:
    """Part of an encoder that its source tells."""

    source: EncoderSource

    @property
    def name(self) -> str:
        """Hub id, or name of the folder."""
        return self.source.name

    @property
    def revision(self) -> str | None:
        """Commit of the hub; None for a folder."""
        return self.source.revision

    @property
    def text_cleaning(self) -> TextCleaning:
        """Cleaning of texts before they are tokenized."""
        return self.source.text_cleaning


def load_encoder(
    id_or_path: str | PathLike[str],
    *,
    revision: str | None = None,
    device: Device = "auto",
    text_cleaning: TextCleaning = "none",
) -> Encoder:
    """Load an encoder of texts and videos, of any registered family, from safetensors, in float32.

    Args:
        id_or_path: a folder, a bundled name (`demo-clip`) or a hub id (`openai/clip-vit-large-patch14`), which may
            end with a revision (`owner/name@v2`).
        revision: branch, tag, commit or pull request (`refs/pr/1`) of a hub repository.
        device: a torch device, or `"auto"`.
        text_cleaning: `clip` cleans texts as OpenAI's CLIP and open_clip do (`clean_texts`); `none` leaves them as
            transformers does. It is part of the space: adapters, caches and exports made with it follow it.

    Raises:
        InputError: it embeds texts alone; or a cleaning that is unknown, or that the family does not do.
        ArtifactError: nothing loadable is there, only pickled weights, or a checkpoint of an unknown family, whose
            weights are not downloaded then.
        MissingExtraError: a package that the family or the cleaning runs on is not installed.
    """
    encoder = EncoderSource.find(id_or_path, revision, text_cleaning).load(device)
    if not embeds_videos(encoder):
        raise InputError(
            f"{encoder.name} embeds texts alone. Name the encoder that the videos are embedded with, and this one "
            "as that of the texts."
        )
    return encoder


def load_text_encoder(
    id_or_path: str | PathLike[str],
    *,
    revision: str | None = None,
    device: Device = "auto",
    text_cleaning: TextCleaning = "none",
) -> TextEncoder:
    """Load an encoder of texts: any that `load_encoder` loads, or one of sentence-transformers for texts alone.

    Arguments and errors are those of `load_encoder`.
    """
    return EncoderSource.find(id_or_path, revision, text_cleaning).load(device)


def embeds_videos(encoder: TextEncoder) -> TypeIs[Encoder]:
    """Tell whether an encoder embeds videos, too."""
    return hasattr(encoder, "embed")


def _identify(repository: Repository) -> tuple[str, list[ModuleFolder]]:
    """Return the model type that a repository's configs name, and its modules of sentence-transformers.

    Modules that leave the vectors of their first one as they are make no other encoder of it.
    """
    listed = repository.find(MODULES)
    modules = [] if listed is None else read_modules(listed)
    others = [module for module in modules[1:] if module.kind != "Normalize"]
    if others:
        return SENTENCE_TRANSFORMERS, modules
    checkpoint = modules[:1]
    config = repository.find(_inside(checkpoint[0].folder if checkpoint else "", _CONFIG))
    model_type = "" if config is None else _model_type(config)
    if model_type in _FAMILIES:
        return model_type, checkpoint
    if modules:
        return SENTENCE_TRANSFORMERS, modules
    for family in _FAMILIES.values():
        if family.config != _CONFIG and repository.find(family.config) is not None:
            return family.model_type, []
    if config is None:
        repository.require_known(_CONFIG)
        raise ArtifactError(f"{repository.folder}: holds no {_CONFIG} of an encoder.")
    return model_type, []


def _inside(subfolder: str, file: str) -> str:
    return f"{subfolder}/{file}" if subfolder else file


def _model_type(config: Path) -> str:
    try:
        content: Any = read_json(config)
        if content.get("format") == "dits_adapter":
            raise ArtifactError(
                f"{config.parent}: is an adapter; name an encoder, for example the one that it was trained for."
            )
        return str(content["model_type"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{config.parent}: no readable config.json of an encoder, with a model_type ({error!r})."
        ) from None
