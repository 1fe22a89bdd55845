"""PyTorch backend: an encoder from `load_encoder`, and the trained adapter."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dits_adapter.adapters.base import Adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends._base import unloadable
from dits_adapter.encoders._images import embed_image
from dits_adapter.encoders._torch import pick_device
from dits_adapter.encoders.base import Device, Encoder, EncoderSource, TextEncoder, embeds_videos
from dits_adapter.errors import InputError
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.vectors import FloatArray

__all__ = ["TorchBackend"]


class TorchBackend:
    """Backend on any torch device; holds the trained adapter, and so can save it.

    Args:
        artifact: the adapter with its space.
        source: place of the adapter's encoder; None where its texts were declared.
        device: a torch device or `"auto"`.
        encoder: the encoder, where it is loaded already.
    """

    def __init__(
        self,
        artifact: Artifact,
        source: EncoderSource | None,
        *,
        device: Device,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.artifact = artifact
        self.space = artifact.space
        self.calibration = artifact.calibration
        self.device = pick_device(device)
        self._source = source
        self._adapter = artifact.adapter.for_inference().to(self.device)
        self._lock = threading.RLock()
        self._encoder = encoder
        self._image_encoder: Encoder | None = None

    def with_adapter(self, adapter: Adapter) -> TorchBackend:
        """Return a backend with the same encoder and another adapter, which is not calibrated."""
        artifact = replace(self.artifact, adapter=adapter, calibration=None)
        return TorchBackend(artifact, self._source, device=self.device, encoder=self._encoder)

    @property
    def adapter(self) -> Adapter:
        """The adapter in its form for inference."""
        return self._adapter

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, loaded by the first call that needs it."""
        with self._lock:
            if self._encoder is None:
                if self._source is None:
                    raise unloadable(self.space.text)
                self._encoder = self._source.load(self.device)
            return self._encoder

    def load(self) -> TextSide:
        """See `Backend.load`."""
        with self._lock:
            return TextSide.of(self.encoder)

    @property
    def max_tokens(self) -> int:
        """See `Backend.max_tokens`."""
        return self.encoder.max_tokens

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `Backend.count_tokens`."""
        with self._lock:  # the tokenizer's truncation state is shared
            return self.encoder.count_tokens(texts)

    def embed(self, texts: list[str], *, batch_size: int) -> FloatArray:
        """See `Backend.embed`."""
        with self._lock:
            return self.encoder.embed_texts(texts, batch_size)

    def encode(self, texts: list[str], *, strength: float, batch_size: int) -> FloatArray:
        """See `Backend.encode`."""
        embedded = self.embed(texts, batch_size=batch_size)
        vectors = np.empty((len(texts), self.space.video.width), np.float32)
        for start in range(0, len(texts), batch_size):
            adapted = self.adapt(embedded[start : start + batch_size], strength=strength)
            # By torch, so that the sentence-transformers model gives the same bits.
            vectors[start : start + batch_size] = F.normalize(torch.as_tensor(adapted), dim=1).numpy()
        return vectors

    @property
    def image_encoder(self) -> Encoder:
        """The encoder, as one of pictures in the space of the videos.

        Raises:
            InputError: it embeds texts alone.
            SpaceMismatchError: it is not the encoder of the videos.
        """
        with self._lock:
            if self._image_encoder is None:
                encoder = self.encoder
                if not embeds_videos(encoder):
                    raise InputError(f"{encoder.name} embeds texts alone, and no pictures; search by text.")
                side = VideoSide.of(encoder, frames=self.space.video.frames)
                self.space.video.require(side, mine="the adapter", theirs="the encoder of the picture")
                self._image_encoder = encoder
            return self._image_encoder

    def embed_image(self, image: NDArray[np.uint8]) -> FloatArray:
        """Embed a picture, (h, w, 3) RGB, as a frame of a video: a unit vector, (d,).

        Raises:
            InputError, SpaceMismatchError: as `image_encoder`, or another shape.
        """
        with self._lock:
            return embed_image(self.image_encoder, image)

    def adapt(self, vectors: FloatArray, *, strength: float) -> FloatArray:
        """See `Backend.adapt`."""
        return self._adapter.adapt(vectors, strength=strength)

    @torch.inference_mode()
    def trajectory(self, vectors: FloatArray) -> FloatArray:
        """See `Backend.trajectory`."""
        path = self._adapter.trajectory(torch.as_tensor(vectors).to(self.device))
        return np.stack([point.cpu().numpy() for point in path])
