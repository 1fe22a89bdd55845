"""Retriever of videos and query embeddings for LlamaIndex: `pip install "dits-adapter[llama-index]"`."""

from __future__ import annotations

import asyncio
from typing import Any

from dits_adapter.answers import Answer
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.integrations._documents import Retrieval, content, metadata, no_documents
from dits_adapter.search import VideoSearch
from dits_adapter.stores.requests import VideoFilter

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.callbacks.base import CallbackManager
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ImportError:
    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex retriever") from None

__all__ = ["DITSEmbedding", "VideoRetriever"]

_FOR_MODELS = ("path", "start", "end")
"""Metadata that a language model reads beside the text."""


class VideoRetriever(BaseRetriever):
    """Retriever of the videos that a text describes, from any `VideoStore`.

    `to_dict` and pickle keep names and options; `from_dict` and the receiving process open the store again.

    Args:
        search: the collection and the encoder of its queries, or the fields of `VideoSearch.to_dict`.
        similarity_top_k: number of videos.
        filters: condition on the videos: a `VideoFilter`, its fields in a dictionary (`{"words": "beach"}`), or a
            filter of the database's own.
        min_probability: least probability that a video is the right one; others are left out.
        min_probability_of_any: least probability that any of the ten best hits is right; below it there are no
            nodes.
        search_options: further fields of `SearchRequest`, such as `{"per_video": 3}`.
        callback_manager: LlamaIndex's.

    Raises:
        InputError: an option outside its range.
    """

    def __init__(
        self,
        search: VideoSearch | dict[str, Any],
        similarity_top_k: int = 10,
        *,
        filters: VideoFilter | dict[str, Any] | Any = None,
        min_probability: float | None = None,
        min_probability_of_any: float | None = None,
        search_options: dict[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._retrieval = Retrieval(
            search=VideoSearch.from_dict(search) if isinstance(search, dict) else search,
            limit=similarity_top_k,
            filter=filters,
            min_probability=min_probability,
            min_probability_of_any=min_probability_of_any,
            search_options=search_options or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments, ready for JSON; never a password.

        Raises:
            InputError: a search or an option that cannot be saved.
        """
        fields = self._retrieval.to_dict()
        fields["filters"] = fields.pop("filter")
        return {"similarity_top_k": self._retrieval.limit, **fields}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> VideoRetriever:
        """Return the retriever that `to_dict` described."""
        return cls(**fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._retrieval.answer(query_bundle.query_str))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self._retrieval.answer_async(query_bundle.query_str))


def _nodes(answer: Answer) -> list[NodeWithScore]:
    nodes = []
    for match in answer.matches:
        facts = metadata(match, answer)
        node = TextNode(
            id_=str(match.hit.id),
            text=content(match),
            metadata=facts,
            excluded_llm_metadata_keys=[name for name in facts if name not in _FOR_MODELS],
        )
        nodes.append(NodeWithScore(node=node, score=match.hit.score))
    return nodes


class DITSEmbedding(BaseEmbedding):
    """Embedding of queries that search video vectors through any LlamaIndex vector store.

    `to_dict` and pickle keep the encoder's name and options; `from_dict` and the receiving process load it again.

    Args:
        encoder: the query encoder; None loads `model_name` with `encoder_options`. Call its `check` on the
            collection: LlamaIndex does not.
        model_name: folder, bundled name or hub id of an adapter.
        encoder_options: options of `DITSQueryEncoder.from_pretrained`.
        options: fields of `BaseEmbedding`.

    Raises:
        InputError: neither an encoder nor a name, or both.

    Examples:
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
        model_name: str | None = None,
        encoder_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if encoder is not None and (model_name or encoder_options):
            raise InputError("model_name and encoder_options stand in the place of an encoder; leave them out.")
        if encoder is None:
            if model_name is None:
                raise InputError("DITSEmbedding needs an encoder, or the model_name of an adapter.")
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
