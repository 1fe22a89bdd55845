"""Encoders: text and video side of one embedding space, by family."""

from __future__ import annotations

from dits_adapter.encoders.base import (
    Device,
    Encoder,
    EncoderFamily,
    EncoderSource,
    load_encoder,
    register_family,
)
from dits_adapter.errors import MissingExtraError

__all__ = ["Encoder", "EncoderFamily", "EncoderSource", "load_encoder", "register_family"]


def _load_clip(source: EncoderSource, device: Device) -> Encoder:
    try:
        from dits_adapter.encoders.clip import load_clip
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "torch", f"loading the encoder {source.name}") from None
    return load_clip(source, device)


register_family(EncoderFamily("clip", _load_clip, subfolder="0_CLIPModel"))
