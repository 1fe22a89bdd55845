"""Retriever of videos and query embeddings for LangChain: `pip install "dits-adapter[langchain]"`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dits_adapter.answers import Answer
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.integrations._documents import Retrieval, content, metadata, no_documents
from dits_adapter.search import VideoSearch

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
    from langchain_core.retrievers import BaseRetriever
except ImportError:
    raise MissingExtraError("langchain-core", "langchain", "the LangChain retriever") from None

__all__ = ["DITSEmbeddings", "VideoRetriever"]

_WIDTH_PROBE = ["dummy_text"]
"""Text that langchain-qdrant embeds as a document, to compare the vector's length with a collection's width."""


class VideoRetriever(BaseRetriever):
    """Retriever of the videos that a text describes, from any `VideoStore`.

    `langchain_core.load.dumps` and pickle keep names and options, and never a password; `loads` and the receiving
    process open the store again. `invoke` and `ainvoke` take `k` and `filter` for one query.

    Attributes:
        search: the collection and the encoder of its queries, or the fields of `VideoSearch.to_dict`.
        k: number of videos.
        filter: condition on the videos: a `VideoFilter`, its fields in a dictionary (`{"words": "beach"}`), or a
            filter of the database's own.
        min_probability: least probability that a video is the right one; others are left out.
        min_probability_of_any: least probability that any of the ten best hits is right; below it there are no
            documents.
        search_options: further fields of `SearchRequest`, such as `{"per_video": 3}`.

    Raises:
        InputError: an option outside its range, or an unknown one.
    """

    search: VideoSearch
    k: int = 10
    filter: Any = None
    min_probability: float | None = None
    min_probability_of_any: float | None = None
    search_options: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, *, search: VideoSearch | dict[str, Any], **fields: Any) -> None:
        known = type(self).model_fields
        if unknown := sorted(fields.keys() - known):  # pydantic would leave them out in silence
            raise InputError(f"the retriever has no option {unknown[0]!r}; its options are {', '.join(known)}.")
        fields["search"] = VideoSearch.from_dict(search) if isinstance(search, dict) else search
        super().__init__(**fields)
        self._retrieval()

    def _retrieval(self) -> Retrieval:
        return Retrieval(
            search=self.search,
            limit=self.k,
            filter=self.filter,
            min_probability=self.min_probability,
            min_probability_of_any=self.min_probability_of_any,
            search_options=self.search_options,
        )

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: `dumps` writes names and options."""
        return True

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Describe the retriever, or say that it cannot be saved, as LangChain's tracing asks of everything."""
        try:
            self._retrieval().to_dict()
        except InputError:
            return self.to_json_not_implemented()
        return super().to_json()

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Options as they are saved."""
        return self._retrieval().to_dict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _retriever, (type(self), {**dict(self), **self._retrieval().to_dict()})

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, filter: Any = None
    ) -> list[Document]:
        return _documents(self._retrieval().answer(query, k, filter))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Any = None,
    ) -> list[Document]:
        return _documents(await self._retrieval().answer_async(query, k, filter))


def _retriever(kind: type[VideoRetriever], fields: dict[str, Any]) -> VideoRetriever:
    return kind(**fields)


def _documents(answer: Answer) -> list[Document]:
    return [
        Document(id=str(match.hit.id), page_content=content(match), metadata=metadata(match, answer))
        for match in answer.matches
    ]


class DITSEmbeddings(Embeddings):
    """Embeddings of queries that search video vectors through any LangChain vector store.

    Pickled, the embeddings travel as the encoder's name and options, and load it again where they arrive.

    Args:
        encoder: the query encoder. Call its `check` on the collection: LangChain compares the width alone.

    Examples:
        >>> embeddings = DITSEmbeddings(DITSQueryEncoder.from_pretrained("demo-dits"))
        >>> len(embeddings.embed_query("a large red circle rises over a green field"))
        128
    """

    def __init__(self, encoder: DITSQueryEncoder) -> None:
        self.encoder = encoder

    def embed_query(self, text: str) -> list[float]:
        """Embed a query on the video side: a unit vector of d floats.

        Raises:
            InputError, SpaceMismatchError: as `DITSQueryEncoder.encode_query`.
        """
        vector: list[float] = self.encoder.encode_query(text).tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Refuse texts as documents; only `_WIDTH_PROBE` is embedded, with its plain CLIP vector.

        Raises:
            InputError: for every other text.
        """
        if texts != _WIDTH_PROBE:
            raise no_documents("embed_documents")
        vectors: list[list[float]] = self.encoder.encode_document(texts).tolist()
        return vectors
