"""Encoders: text and video side of one embedding space, by family."""

from __future__ import annotations

from functools import partial

from dits_adapter._extras import name_missing_extra
from dits_adapter.encoders._families import (
    DUAL_FAMILIES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_EXAMPLES,
    OPEN_CLIP_WEIGHTS,
    DualFamily,
)
from dits_adapter.encoders.base import (
    CHECKPOINT_FILES,
    SENTENCE_TRANSFORMERS,
    Device,
    Encoder,
    EncoderFamily,
    EncoderSource,
    TextEncoder,
    load_encoder,
    load_text_encoder,
    register_family,
)

__all__ = [
    "Encoder",
    "EncoderFamily",
    "EncoderSource",
    "TextEncoder",
    "load_encoder",
    "load_text_encoder",
    "register_family",
]


def _load_dual(family: DualFamily, source: EncoderSource, device: Device) -> Encoder:
    with name_missing_extra(f"the encoder {source.name}"):
        from dits_adapter.encoders.dual import load_dual

        return load_dual(source, device, family)


def _load_open_clip(source: EncoderSource, device: Device) -> Encoder:
    with name_missing_extra(f"the encoder {source.name}"):
        from dits_adapter.encoders.openclip import load_open_clip

        return load_open_clip(source, device)


def _load_sentence(source: EncoderSource, device: Device) -> TextEncoder:
    with name_missing_extra(f"the encoder {source.name}"):
        from dits_adapter.encoders.sentence import load_sentence

        return load_sentence(source, device)


_CONFIGS_OF_TEXTS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

for _family in DUAL_FAMILIES.values():
    register_family(
        EncoderFamily(_family.model_type, partial(_load_dual, _family), examples=_family.with_safetensors)
    )
register_family(
    EncoderFamily(
        "open_clip",
        _load_open_clip,
        files=(OPEN_CLIP_CONFIG, *CHECKPOINT_FILES),
        weights=OPEN_CLIP_WEIGHTS,
        config=OPEN_CLIP_CONFIG,
        examples=OPEN_CLIP_EXAMPLES,
    )
)
register_family(
    EncoderFamily(
        SENTENCE_TRANSFORMERS,
        _load_sentence,
        files=(*CHECKPOINT_FILES, *(f"sentence_{kind}_config.json" for kind in _CONFIGS_OF_TEXTS)),
    )
)
