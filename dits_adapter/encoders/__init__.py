"""Encoders: text and video side of one embedding space, by family."""

from __future__ import annotations

from dits_adapter._extras import name_missing_extra
from dits_adapter.encoders.base import (
    Device,
    Encoder,
    EncoderFamily,
    EncoderSource,
    load_encoder,
    register_family,
)

__all__ = ["Encoder", "EncoderFamily", "EncoderSource", "load_encoder", "register_family"]


def _load_clip(source: EncoderSource, device: Device) -> Encoder:
    with name_missing_extra(f"the encoder {source.name}"):
        from dits_adapter.encoders.clip import load_clip

        return load_clip(source, device)


register_family(
    EncoderFamily(
        "clip",
        _load_clip,
        examples=(
            "sentence-transformers/clip-ViT-B-32",
            "openai/clip-vit-large-patch14",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        ),
    )
)
