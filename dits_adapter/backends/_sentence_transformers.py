"""The sentence-transformers model of a `TorchBackend`: encoder, adapter and normalization as modules."""

from __future__ import annotations

from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Normalize
from torch import Tensor

from dits_adapter.adapters.base import Adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends._pytorch import TorchBackend
from dits_adapter.encoders.base import TransformersEncoder
from dits_adapter.errors import InputError

__all__ = ["QueryAdapter", "sentence_transformer"]


class QueryAdapter(Module):  # type: ignore[misc]
    """Module that adapts text embeddings in `encode_query`, and leaves `encode_document`, `encode` and images.

    It stands between the encoder's `Transformer`, whose embeddings it reads un-normalized, and `Normalize`.

    Args:
        artifact: the adapter with its space, which `save` writes.
        adapter: adapter in the form for inference (`artifact.adapter.for_inference()`).
        strength: movement of queries, 0 (plain) to 1.
    """

    forward_kwargs: ClassVar[set[str]] = {"task"}
    config_file_name: ClassVar[str] = "query_adapter.json"  # config.json is the artifact's
    config_keys: ClassVar[list[str]] = ["strength"]

    def __init__(self, artifact: Artifact, adapter: Adapter, strength: float = 1.0) -> None:
        super().__init__()
        self.artifact = artifact
        self.strength = strength
        self.adapter = adapter

    def forward(self, features: dict[str, Any], task: str | None = None, **_: Any) -> dict[str, Any]:
        """Adapt `features["sentence_embedding"]`, (n, d), where the task is a query and its input is text."""
        if task == "query" and features.get("modality", "text") == "text":
            embedding: Tensor = features["sentence_embedding"]
            features["sentence_embedding"] = self.adapter.adapt(embedding, strength=self.strength)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the artifact and the strength into the module's folder."""
        with self.artifact.saving(output_path) as fresh:
            self.save_config(str(fresh))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> QueryAdapter:
        """Load a module that `save` wrote, from a folder or the hub."""
        where = {
            key: options[key]
            for key in ("token", "cache_folder", "revision", "local_files_only")
            if key in options
        }
        artifact = Artifact.load(cls.load_dir_path(model_name_or_path, subfolder, **where))
        config = cls.load_config(model_name_or_path, subfolder, **where)
        return cls(artifact, artifact.adapter.for_inference(), **config)


def sentence_transformer(backend: TorchBackend, strength: float) -> SentenceTransformer:
    """Build the sentence-transformers model, which shares the backend's encoder and adapter.

    Args:
        backend: encoder and adapter.
        strength: strength of queries, 0 (plain) to 1.

    Raises:
        InputError: the encoder is of a family that sentence-transformers cannot run.
    """
    encoder = backend.encoder
    if not isinstance(encoder, TransformersEncoder):
        raise InputError(f"{encoder.name} is of an encoder family that has no sentence-transformers form.")
    adapter = QueryAdapter(backend.artifact, backend.adapter, strength)
    modules = [encoder.as_transformer(), adapter, Normalize()]
    return SentenceTransformer(modules=modules, device=str(backend.device))
