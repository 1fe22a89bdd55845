"""The PyTorch backend: CLIP, adapter and normalization as a sentence-transformers model."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import torch

from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends.base import Array
from dits_adapter.encoders.clip import LOADING_ERRORS, Clip, ClipSource, no_loading_bars, pick_device
from dits_adapter.errors import ArtifactError
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Stated, because sentence-transformers cannot infer them for CLIP where torchvision is absent.
CLIP_TOWERS = {
    modality: {"method": f"get_{modality}_features", "method_output_name": "pooler_output"}
    for modality in ("text", "image")
}


class TorchBackend:
    """Runs on any torch device; holds the trained adapter, and so can save it.

    Args:
        artifact: the adapter with its space.
        source: where its CLIP is.
        device: a torch device or `"auto"`.
        strength: of `encode`, 0 (plain CLIP) to 1 (fully adapted).
    """

    def __init__(
        self, artifact: Artifact, source: ClipSource, *, device: str | torch.device, strength: float
    ) -> None:
        self.artifact = artifact
        self.space = artifact.space
        self.calibration = artifact.calibration
        self._source = source
        self._device = pick_device(device)
        self._strength = strength
        self._adapter = artifact.adapter.for_inference().to(self._device)
        self._lock = threading.RLock()
        self._loaded: tuple[SentenceTransformer, Clip, EmbeddingSpace] | None = None

    def load(self) -> EmbeddingSpace:
        """See `Backend.load`."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded[2]

    @property
    def model(self) -> SentenceTransformer:
        """CLIP, adapter, normalization."""
        self.load()
        assert self._loaded is not None
        return self._loaded[0]

    @property
    def clip(self) -> Clip:
        """The CLIP in `model`."""
        self.load()
        assert self._loaded is not None
        return self._loaded[1]

    def _load(self) -> tuple[SentenceTransformer, Clip, EmbeddingSpace]:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize, Transformer

        from dits_adapter.integrations.sentence_transformers import QueryAdapter

        where = self._source.loading()
        try:
            with no_loading_bars():
                transformer = Transformer(
                    self._source.location,
                    model_kwargs={"dtype": torch.float32, "use_safetensors": True, **where},
                    processor_kwargs={"backend": "pil", **where},
                    config_kwargs=where,
                    modality_config=CLIP_TOWERS,
                    module_output_name="sentence_embedding",
                )
        except LOADING_ERRORS as error:
            raise ArtifactError(f"{self._source.location}: cannot load a CLIP from here. {error}") from error
        transformer.model.requires_grad_(False).eval()
        clip = Clip(transformer.model, transformer.tokenizer, transformer.processor.image_processor, self._source)
        space = EmbeddingSpace.of(clip, frames=self.space.frames)
        adapter = QueryAdapter(self.artifact, self._adapter, self._strength)
        model = SentenceTransformer(modules=[transformer, adapter, Normalize()], device=str(self._device))
        return model, clip, space

    @property
    def max_tokens(self) -> int:
        """See `Backend.max_tokens`."""
        return int(self.model.tokenizer.model_max_length)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `Backend.count_tokens`."""
        with self._lock:  # the tokenizer's truncation state is shared
            counted = self.model.tokenizer(texts, truncation=False, verbose=False)
        return [len(ids) for ids in counted["input_ids"]]

    def encode(self, texts: list[str], *, adapted: bool, batch_size: int) -> Array:
        """See `Backend.encode`."""
        with self._lock:
            encode = self.model.encode_query if adapted else self.model.encode_document
            vectors: Array = encode(texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
        return vectors

    def adapt(self, vectors: Array, *, strength: float) -> Array:
        """See `Backend.adapt`."""
        return self._adapter.adapt(vectors, strength=strength)

    @torch.inference_mode()
    def trajectory(self, vectors: Array) -> Array:
        """See `Backend.trajectory`."""
        path = self._adapter.trajectory(torch.as_tensor(vectors).to(self._device))
        return np.stack([point.cpu().numpy() for point in path])
