"""`DITSEmbeddings`, query embeddings for LangChain: `pip install "dits-adapter[langchain]"`."""

from __future__ import annotations

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import MissingExtraError
from dits_adapter.integrations._documents import no_documents

try:
    from langchain_core.embeddings import Embeddings
except ImportError:
    raise MissingExtraError("langchain-core", "langchain", "the LangChain embeddings") from None

__all__ = ["DITSEmbeddings"]

_WIDTH_PROBE = ["dummy_text"]
"""Text that langchain-qdrant embeds as a document, to compare the vector's length with a collection's width."""


class DITSEmbeddings(Embeddings):
    """Embeddings of queries that search video vectors through any LangChain vector store.

    Pickled, the embeddings travel as the encoder's name and options, and load it again where they arrive.

    Args:
        encoder: the query encoder. Call its `check` on the collection: LangChain compares the width alone.

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
        """Refuse texts as documents; only `_WIDTH_PROBE` is embedded, with its plain CLIP vector.

        Raises:
            InputError: for every other text.
        """
        if texts != _WIDTH_PROBE:
            raise no_documents("embed_documents")
        vectors: list[list[float]] = self.encoder.encode_document(texts).tolist()
        return vectors
