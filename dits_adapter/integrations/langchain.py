"""DITS as LangChain's `Embeddings`: `pip install "dits-adapter[langchain]"`."""

from __future__ import annotations

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import MissingExtraError
from dits_adapter.integrations._documents import no_documents

try:
    from langchain_core.embeddings import Embeddings
except ImportError:
    raise MissingExtraError("langchain-core", "langchain", "the LangChain bridge") from None

WIDTH_PROBE = ["dummy_text"]
"""What langchain-qdrant embeds as a document, to compare the length of the result with a collection's width."""


class DITSEmbeddings(Embeddings):
    """Embeds queries that search video vectors through any LangChain vector store.

    Args:
        encoder: the query encoder. Have it `check` the collection, which LangChain does by width alone.

    Example:
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
        """Refuse texts as documents; only `WIDTH_PROBE` is answered, with its plain CLIP vector.

        Raises:
            InputError: for every other text.
        """
        if texts != WIDTH_PROBE:
            raise no_documents("embed_documents")
        vectors: list[list[float]] = self.encoder.encode_document(texts).tolist()
        return vectors
