"""SigLIP's first tokenizer, which is a Python class around sentencepiece, for `tokenizers`."""

from __future__ import annotations

import string
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing

from dits_adapter.errors import InputError

__all__ = ["convert_siglip"]

_PROBES = (
    "a photo of a dog",
    "  Someone's DOG,\tat 12:30 -- isn't it?\n",
    "naïve 日本語 🎬 ½ ﬁ",
    "(?!)",
    "x" * 300,
)
"""Texts that both have to cut alike."""


def convert_siglip(tokenizer: Any) -> Tokenizer:
    """Convert a `SiglipTokenizer` of transformers.

    Raises:
        InputError: the two cut some text differently.
    """
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.sp_model.serialized_model_proto())
    charsmap = model.normalizer_spec.precompiled_charsmap
    converted = Tokenizer(
        Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=model.trainer_spec.unk_id)
    )
    converted.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(f"[{_escaped(string.punctuation)}]"), ""),
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    converted.pre_tokenizer = Metaspace(prepend_scheme="always")
    converted.add_special_tokens(sorted({tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token}))
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    converted.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    for text in _PROBES:
        if converted.encode(text).ids != tokenizer(text, truncation=False, verbose=False)["input_ids"]:
            raise InputError(f"the tokenizer of this SigLIP cannot be exported: its copy cuts {text!r} otherwise.")
    return converted


def _escaped(characters: str) -> str:
    return "".join(f"\\{character}" for character in characters)
