"""Embedding function of queries for LanceDB: `pip install "dits-adapter[lancedb]"`.

Importing the module registers it as "dits_adapter": a table that was created with it makes it anew wherever it is
opened.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dits_adapter.errors import MissingExtraError
from dits_adapter.integrations._documents import no_documents
from dits_adapter.integrations._functions import QueryFunction

try:
    from lancedb.embeddings import EmbeddingFunction, register
except ImportError:
    raise MissingExtraError("lancedb", "lancedb", "the LanceDB embedding function") from None

__all__ = ["DITSEmbeddingFunction"]


@register("dits_adapter")  # type: ignore[no-untyped-call]
class DITSEmbeddingFunction(EmbeddingFunction):
    """Embedding function of queries; source columns are refused, since videos are stored by their vectors.

    Make it with `DITSEmbeddingFunction.create(model="demo-dits")`. A table keeps it by the adapter's name and
    options, with the space of the vectors: a query of another space is refused.

    Attributes:
        model: folder, bundled name or hub id of an adapter.
        options: options of `DITSQueryEncoder.from_pretrained`, such as `{"strength": 0.8}`.
        space: space of the vectors, as a table keeps it; None for that of the adapter's videos.
    """

    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Any] | None = None

    def __hash__(self) -> int:
        return hash(self.model)

    @property
    def _function(self) -> QueryFunction:
        return QueryFunction(self.model, self.options, self.space)

    def ndims(self) -> int:
        """Return the dimension of the vectors."""
        return self._function.width

    def safe_model_dump(self) -> dict[str, Any]:
        """Return the arguments, as a table keeps them."""
        return self._function.config()

    def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[Any]:
        """Embed a query on the video side: a list of one unit vector, (d,) float32.

        Raises:
            SpaceMismatchError: the table is of another space than the adapter.
            InputError: see `DITSQueryEncoder.encode_query`.
        """
        return list(self._function.encode(query, theirs="the table"))

    def compute_source_embeddings(self, *_: Any, **__: Any) -> list[Any]:
        """Refuse texts as documents.

        Raises:
            InputError: always.
        """
        raise no_documents("LanceDB")

    # Nothing here is mended by waiting, after which LanceDB would hide the reason.
    compute_query_embeddings_with_retry = compute_query_embeddings
    compute_source_embeddings_with_retry = compute_source_embeddings
