"""Query encoders for fastembed and qdrant-client's inference: `pip install "dits-adapter[fastembed]"`.

Once an encoder is registered, `models.Document(text=…, model="dits/…")` is a query wherever qdrant-client takes
one, sync and async.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.integrations._documents import no_documents
from dits_adapter.vectors import FloatArray

try:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import DenseModelDescription, ModelSource
    from fastembed.text.text_embedding_base import TextEmbeddingBase
except ImportError:
    raise MissingExtraError("fastembed", "fastembed", "registering an encoder with fastembed") from None

__all__ = ["DITSTextEmbedding", "register"]

_ONNX_OPTIONS = {"cache_dir", "threads", "providers", "cuda", "device_ids", "lazy_load"}
"""Options that fastembed and qdrant-client always pass, meant for fastembed's own models."""


class DITSTextEmbedding(TextEmbeddingBase):
    """Text embedding that `fastembed.TextEmbedding` builds for a registered name."""

    encoders: ClassVar[dict[str, DITSQueryEncoder]] = {}

    def __init__(self, model_name: str, **options: Any) -> None:
        unknown = sorted(options.keys() - _ONNX_OPTIONS)
        if unknown:
            raise InputError(
                f"{model_name} takes no option {unknown[0]!r} here: give it to DITSQueryEncoder.from_pretrained, "
                "and register that encoder."
            )
        super().__init__(model_name)
        self._encoder = self.encoders[model_name.lower()]

    def embed(self, documents: str | Iterable[str], *_: Any, **__: Any) -> Iterable[FloatArray]:
        """Refuse texts as documents.

        Raises:
            InputError: always.
        """
        raise no_documents(f"the fastembed model {self.model_name}")

    def query_embed(self, query: str | Iterable[str], batch_size: int = 64, **_: Any) -> Iterable[FloatArray]:
        """Yield the vector, (d,) float32 of unit norm, of each query."""
        yield from self._encoder.encode_query([query] if isinstance(query, str) else query, batch_size=batch_size)

    @classmethod
    def _list_supported_models(cls) -> list[DenseModelDescription]:
        return [
            DenseModelDescription(
                model=name,
                dim=encoder.space.video.width,
                description=f"DITS on {encoder.space.text.encoder}, registered by this program",
                license="",
                size_in_GB=0.0,
                model_file="",
                sources=ModelSource(url=""),
            )
            for name, encoder in cls.encoders.items()
        ]


def register(name: str, encoder: DITSQueryEncoder) -> None:
    """Make an encoder known to fastembed and qdrant-client, in this process.

    Args:
        name: value of `models.Document(model=…)`, in upper or lower case: "dits/demo". Registered again, the name
            means the new encoder, for clients that have not used it yet.
        encoder: the query encoder. Call its `check` on the collection, which qdrant-client does not check.

    Raises:
        InputError: the name is that of another model of fastembed's.
    """
    name = name.lower()
    if name not in DITSTextEmbedding.encoders and any(
        name == model["model"].lower() for model in TextEmbedding.list_supported_models()
    ):
        raise InputError(f"{name!r} is a model of fastembed's own; register the encoder under another name.")
    DITSTextEmbedding.encoders[name] = encoder
    if DITSTextEmbedding not in TextEmbedding.EMBEDDINGS_REGISTRY:
        TextEmbedding.EMBEDDINGS_REGISTRY.append(DITSTextEmbedding)
