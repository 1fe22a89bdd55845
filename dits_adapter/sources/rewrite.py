"""Search queries that a text model of transformers makes of captions."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch

from dits_adapter._reprs import short_repr
from dits_adapter.encoders.base import Device
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sources._checkpoints import Checkpoint, greedy_texts, quiet

__all__ = ["Rewriter"]

_PROMPT = (
    "Somebody looks for a video that shows this: {caption}\n"
    "Write the short search query that they type, in other words than these. Write nothing else."
)

_TOKENS = 32
"""Longest query."""


class Rewriter:
    """Chat model that turns a caption into the words that people type; greedy.

    Args:
        id_or_path: folder or hub id of a text-generation model with a chat template.
        batch_size: captions that are rewritten at a time.
        device: a torch device or `"auto"`.

    Raises:
        ArtifactError: nothing loadable is there, or a model of another kind, of which no weights are downloaded.
        InputError: no such device, or a batch of no captions.
    """

    def __init__(self, id_or_path: str | PathLike[str], *, batch_size: int = 8, device: Device = "auto") -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1.")
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        checkpoint = Checkpoint.find(
            id_or_path,
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            task="queries are written by chat models (Qwen/Qwen2.5-0.5B-Instruct)",
        )
        checkpoint.fetch_settings()
        with quiet(), checkpoint.reading():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                checkpoint.folder, padding_side="left", trust_remote_code=False
            )
        if self._tokenizer.chat_template is None:
            raise ArtifactError(
                f"{checkpoint.name}: has no chat template; take a model that was taught to answer."
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = checkpoint.load(AutoModelForCausalLM, device)
        self._batch, self.identity = batch_size, checkpoint.identity

    def __repr__(self) -> str:
        return short_repr(self, self.identity)

    @torch.inference_mode()
    def rewrite(self, captions: Sequence[str]) -> list[str]:
        """Return a query for each caption; an empty text where the model gives none."""
        queries: list[str] = []
        for start in range(0, len(captions), self._batch):
            inputs = self._tokenizer.apply_chat_template(
                [
                    [{"role": "user", "content": _PROMPT.format(caption=c)}]
                    for c in captions[start : start + self._batch]
                ],
                add_generation_prompt=True,
                padding=True,
                return_dict=True,
                return_tensors="pt",
            )
            answers = greedy_texts(self._model, self._tokenizer, inputs.to(self._model.device), most=_TOKENS)
            queries += [next(iter(answer.text.splitlines()), "").strip().strip("\"“”'") for answer in answers]
        return queries
