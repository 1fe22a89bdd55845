"""Backend behind a name: an exported adapter on ONNX Runtime, one on torch, or an encoder without an adapter."""

from __future__ import annotations

import warnings
from os import PathLike

from dits_adapter._hub import bundled
from dits_adapter.artifact._find import find_adapter, find_encoder, is_exported
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends._base import Backend
from dits_adapter.backends._onnx_runtime import OnnxBackend, onnx_installed
from dits_adapter.encoders.base import Device, EncoderSource, TextEncoder, embeds_videos, load_encoder
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.texts import TextCleaning

__all__ = ["backend_of", "open_backend"]


def open_backend(
    name: str,
    *,
    backend: str,
    encoder: str | None,
    revision: str | None,
    device: str,
    steps: int | None,
    text_cleaning: TextCleaning | None,
    videos: str | None,
) -> Backend:
    """Load the backend that the options choose; see `DITSQueryEncoder.from_pretrained`."""
    of_torch = {
        "encoder": encoder,
        "steps": steps,
        "device": None if device in ("auto", "cpu") else device,
        "text_cleaning": text_cleaning,
    }
    needs_torch = [option for option, value in of_torch.items() if value is not None]
    onnx = backend == "onnx" or (backend == "auto" and not needs_torch and onnx_installed())
    folder = find_adapter(name, revision, onnx=onnx)
    if folder is None:
        if backend == "onnx":
            raise ArtifactError(f'{name}: is no adapter; backend="onnx" runs those that were exported.')
        return _plain(EncoderSource.find(name, revision, text_cleaning or "none"), device, videos)
    if videos is not None:
        raise InputError(
            f"videos is for an encoder without an adapter; {name} is an adapter, and names its videos."
        )
    if backend == "onnx" or (onnx and is_exported(folder)):
        if needs_torch:
            raise InputError(
                f'{needs_torch[0]} cannot be chosen with backend="onnx", which runs on the CPU what was exported.'
            )
        return OnnxBackend(folder)

    from dits_adapter.backends._pytorch import TorchBackend

    artifact = Artifact.load(folder)
    if steps is not None and steps != artifact.adapter.steps:
        artifact.adapter, artifact.calibration = artifact.adapter.with_steps(steps), None
    texts = artifact.space.text
    cleaning = text_cleaning or texts.text_cleaning
    source: EncoderSource | None = None
    if encoder is not None:
        source = EncoderSource.find(encoder, text_cleaning=cleaning)
    elif not texts.declared:
        source = EncoderSource.find(find_encoder(folder, texts), texts.revision, cleaning)
    return TorchBackend(artifact, source, device=device)


def backend_of(artifact: Artifact, encoder: str | PathLike[str] | None, device: Device) -> Backend:
    """Return a backend for an adapter in memory; see `DITSQueryEncoder.of`."""
    from dits_adapter.backends._pytorch import TorchBackend

    texts = artifact.space.text
    place = encoder or artifact.encoder or bundled(texts.encoder)
    source = None if place is None else EncoderSource.find(place, text_cleaning=texts.text_cleaning)
    return TorchBackend(artifact, source, device=device)


def _plain(source: EncoderSource, device: str, videos: str | None) -> Backend:
    """Return a backend for an encoder whose adapter has not been trained yet."""
    from dits_adapter.backends._pytorch import TorchBackend

    encoder = source.load(device)
    space = _plain_space(encoder, device, videos)
    warnings.warn(
        f"{source.name} is an encoder without an adapter: its queries are encoded as plain CLIP. "
        "Train an adapter for it with: dits-adapter train CACHE --out FOLDER",
        stacklevel=5,  # open_backend, from_pretrained and its decorator lie between
    )
    return TorchBackend(Artifact.plain(space), source, device=device, encoder=encoder)


def _plain_space(encoder: TextEncoder, device: str, videos: str | None) -> EmbeddingSpace:
    """Describe the texts of an encoder and the videos that they find without an adapter."""
    if videos is not None:
        video = VideoSide.of(load_encoder(videos, device=device), frames=None)
    elif embeds_videos(encoder):
        return EmbeddingSpace.of(encoder, frames=None)
    else:
        raise InputError(
            f"{encoder.name} embeds texts alone. Where they lead into the space of another encoder's videos, name "
            "that one as videos (--videos ID); any other videos take an adapter that was trained for both."
        )
    if video.width != encoder.width:
        raise InputError(
            f"{encoder.name} embeds texts in {encoder.width} dimensions, and {video.encoder} videos in "
            f"{video.width}: they share no space, and take an adapter that was trained for both."
        )
    return EmbeddingSpace(text=TextSide.of(encoder), video=video)
