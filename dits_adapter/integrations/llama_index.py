"""`DITSEmbedding`, query embeddings for LlamaIndex: `pip install "dits-adapter[llama-index]"`."""

from __future__ import annotations

import asyncio
from typing import Any

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import MissingExtraError
from dits_adapter.integrations._documents import no_documents

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ImportError:
    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex embedding") from None


__all__ = ["DITSEmbedding"]


class DITSEmbedding(BaseEmbedding):
    """Embedding of queries that search video vectors through any LlamaIndex vector store.

    `to_dict` and pickle keep the encoder's name and options; `from_dict` and the receiving process load it again.

    Args:
        encoder: the query encoder; None loads `model_name` with `encoder_options`. Call its `check` on the
            collection: LlamaIndex does not.
        model_name: folder, bundled name or hub id of an adapter.
        encoder_options: options of `DITSQueryEncoder.from_pretrained`.
        options: fields of `BaseEmbedding`.

    Example:
        >>> embedding = DITSEmbedding(DITSQueryEncoder.from_pretrained("demo-dits"))
        >>> len(embedding.get_query_embedding("a large red circle rises over a green field"))
        128
    """

    encoder_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of DITSQueryEncoder.from_pretrained."
    )
    _encoder: DITSQueryEncoder = PrivateAttr()

    def __init__(
        self,
        encoder: DITSQueryEncoder | None = None,
        *,
        model_name: str = "demo-dits",
        encoder_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if encoder is None:
            encoder = DITSQueryEncoder.from_pretrained(model_name, **(encoder_options or {}))
        name = encoder.name_or_path or f"DITS on {encoder.space.text.encoder}"
        options.update(model_name=name, encoder_options=encoder.options)
        super().__init__(**options)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex reports the class."""
        return "DITSEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode_query(query).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        raise no_documents("get_text_embedding")
