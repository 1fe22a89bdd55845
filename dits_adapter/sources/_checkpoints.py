"""Checkpoints of transformers that make texts: found at one commit, refused by their config, loaded, and run.

As with encoders, config.json is read before anything else, nothing but safetensors is loaded, and no code of a
repository is run. Decoding is greedy, so that the same input gives the same text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from dits_adapter._hub import Repository, open_repository
from dits_adapter._user_files import read_json
from dits_adapter._wording import printable
from dits_adapter.encoders._torch import LOADING_ERRORS, loading_reason, no_checkpoint_bars, pick_device
from dits_adapter.encoders._weight_files import fetch_weights
from dits_adapter.encoders.base import CHECKPOINT_FILES, Device
from dits_adapter.errors import ArtifactError, MissingExtraError

__all__ = ["Checkpoint", "GreedyConfidence", "ScoredText", "greedy_texts", "quiet"]

_FILES = (*CHECKPOINT_FILES, "generation_config.json", "normalizer.json", "processor_config.json")
"""Files beside the weights of a model that makes texts."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint of a model that makes texts.

    Attributes:
        name: hub id, or path of the folder.
        folder: folder of its files.
        model_type: that of its config.json.
        revision: commit of the hub; None for a folder.
    """

    name: str
    folder: Path
    model_type: str
    revision: str | None = None

    @classmethod
    def find(cls, id_or_path: str | PathLike[str], accepted: Collection[str], *, task: str) -> Checkpoint:
        """Find a checkpoint by folder or hub id and read its config; nothing else is downloaded.

        Args:
            id_or_path: folder or hub id (`owner/name`, `owner/name@revision`).
            accepted: model types that do the task.
            task: what the model is for and an example, for the message.

        Raises:
            ArtifactError: nothing there, no readable config, or a model of another type.
        """
        repository = open_repository(id_or_path)
        config = repository.find("config.json")
        if config is None:
            repository.require_known("config.json")
            raise ArtifactError(f"{repository.folder}: holds no config.json of a model.")
        try:
            model_type = str(read_json(config)["model_type"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{config}: is no readable config of a model, with a model_type ({error!r})."
            ) from None
        if model_type not in accepted:
            raise ArtifactError(f"{id_or_path}: is a model of type {printable(model_type)!r}; {task}.")
        name = repository.name if repository.commit else str(repository.folder)
        return cls(name, repository.folder, model_type, repository.commit)

    @property
    def identity(self) -> str:
        """Name and commit, by which results of another model are known."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    def _open(self) -> Repository:
        return open_repository(self.name, self.revision)

    def fetch_settings(self) -> None:
        """Download the files beside the weights; raises `ArtifactError` where they cannot be had."""
        self._open().fetch(_FILES)

    def load(self, kind: Any, device: Device) -> Any:
        """Load the model in eval mode: in the precision that it was saved in, on a CPU never in float16.

        Args:
            kind: auto class of transformers.
            device: a torch device or `"auto"`.

        Raises:
            ArtifactError: no safetensors, or a damaged or incomplete checkpoint.
            InputError: no such device.
        """
        place = pick_device(device)
        self.fetch_settings()
        if not fetch_weights(self._open(), "model.safetensors"):
            raise ArtifactError(
                f"{self.name}: holds no safetensors. Pickled weights (.bin, .pt) are refused because loading them "
                "can run code. Where a pull request of the repository adds them, and you have read it, name it: "
                f"{self.name}@refs/pr/NUMBER."
            )
        with quiet(), self.reading():
            from transformers import AutoConfig

            saved = AutoConfig.from_pretrained(self.folder, trust_remote_code=False).dtype
            dtype = torch.float32 if saved is None or (place.type, saved) == ("cpu", torch.float16) else saved
            model, report = kind.from_pretrained(
                self.folder, dtype=dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
        if report["missing_keys"]:  # transformers would leave them at random values
            first = sorted(report["missing_keys"])[0]
            raise ArtifactError(
                f"{self.name}: the weights lack {len(report['missing_keys'])} tensors ({first}, …)."
            )
        return model.requires_grad_(False).eval().to(place)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Translate what transformers raises for a damaged checkpoint, or for a package that it lacks.

        Raises:
            ArtifactError: see above.
            MissingExtraError: its processor needs torchvision.
        """
        try:
            yield
        except ImportError as error:
            if "torchvision" in str(error).lower():
                raise MissingExtraError("torchvision", "captions", f"a model of type {self.model_type}") from None
            raise
        except (*LOADING_ERRORS, TypeError, KeyError, AttributeError) as error:
            reason = loading_reason(error, self.folder)
            raise ArtifactError(f"{self.name}: cannot load a {self.model_type} from here. {reason}") from error


class ScoredText(NamedTuple):
    """Text of a model, and the mean probability (geometric) of its tokens."""

    text: str
    confidence: float


class GreedyConfidence(LogitsProcessor):
    """Recorder of the probabilities of the tokens that greedy decoding takes: one number a step and row.

    The matrices of scores themselves would take a gigabyte for a batch of Whisper's.
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._steps.append(scores.float().log_softmax(dim=-1).amax(dim=-1))
        return scores

    def tokens(self, sequences: Tensor) -> list[list[tuple[int, float]]]:
        """Return the new tokens of each row of what `generate` returned, each with its log-probability."""
        steps = len(self._steps)
        if not steps:
            return [[] for _ in sequences]
        logs = torch.stack(self._steps, dim=1).cpu().tolist()
        return [
            list(zip(row, log, strict=True)) for row, log in zip(sequences[:, -steps:].tolist(), logs, strict=True)
        ]


def greedy_texts(model: Any, tokenizer: Any, inputs: Mapping[str, Any], *, most: int) -> list[ScoredText]:
    """Generate greedily and return the new text of each row, without special tokens.

    Args:
        model: a model that generates.
        tokenizer: the tokenizer of its texts.
        inputs: arguments of the model, on its device.
        most: number of tokens of a text at most.
    """
    confidence, special = GreedyConfidence(), set(tokenizer.all_special_ids)
    with quiet():
        sequences = model.generate(
            **inputs, max_new_tokens=most, do_sample=False, num_beams=1, logits_processor=[confidence]
        )
    found = []
    for row in confidence.tokens(sequences):
        said = [(token, log) for token, log in row if token not in special]
        text = tokenizer.decode([token for token, _ in said]).strip()
        logs = [log for _, log in said]
        found.append(ScoredText(text, math.exp(sum(logs) / len(logs)) if logs else 1.0))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars, and from advice on options that are set here on purpose."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_checkpoint_bars():
            yield
    finally:
        logging.set_verbosity(level)
