"""DITS as LlamaIndex's `BaseEmbedding`: `pip install "dits-adapter[llama-index]"`."""

from __future__ import annotations

import asyncio
from typing import Any

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import MissingExtraError
from dits_adapter.integrations._documents import no_documents

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
except ImportError:
    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex bridge") from None


class DITSEmbedding(BaseEmbedding):
    """Embeds queries that search video vectors through any LlamaIndex vector store.

    Args:
        encoder: the query encoder. Have it `check` the collection, which LlamaIndex does not.
        options: fields of `BaseEmbedding`.

    Example:
        >>> embedding = DITSEmbedding(DITSQueryEncoder.from_pretrained("demo-dits"))
        >>> len(embedding.get_query_embedding("a large red circle rises over a green field"))
        128
    """

    _encoder: DITSQueryEncoder = PrivateAttr()

    def __init__(self, encoder: DITSQueryEncoder, **options: Any) -> None:
        options.setdefault("model_name", f"DITS on {encoder.space.encoder}")
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
