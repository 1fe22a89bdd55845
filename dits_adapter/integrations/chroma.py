"""Embedding function of queries for Chroma: `pip install "dits-adapter[chroma]"`.

Importing the module registers it: a collection that was created with it makes it anew wherever it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from dits_adapter.errors import MissingExtraError, StoreError
from dits_adapter.integrations._documents import no_documents
from dits_adapter.integrations._functions import QueryFunction

try:
    from chromadb import Collection, Documents, EmbeddingFunction, Embeddings
    from chromadb.api.types import Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError:
    raise MissingExtraError("chromadb", "chroma", "the Chroma embedding function") from None

__all__ = ["DITSEmbeddingFunction"]


@register_embedding_function
class DITSEmbeddingFunction(EmbeddingFunction[Documents]):  # type: ignore[misc]
    """Embedding function of queries; documents are refused, since videos are stored by their vectors.

    A collection keeps it by the adapter's name and options, with the space of the vectors: a query of another
    space is refused.

    Args:
        model: folder, bundled name or hub id of an adapter.
        options: options of `DITSQueryEncoder.from_pretrained`, such as `{"strength": 0.8}`.
        space: space of the vectors, as a collection keeps it; None for that of the adapter's videos.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        options: Mapping[str, Any] | None = None,
        space: Mapping[str, Any] | None = None,
    ) -> None:
        self._function = QueryFunction(model, options, space)

    def __call__(self, input: Documents) -> Embeddings:
        """Refuse texts as documents.

        Raises:
            InputError: always.
        """
        raise no_documents("Chroma")

    def embed_query(self, input: Documents) -> Embeddings:
        """Embed queries on the video side: a unit vector (d,) float32 of each.

        Raises:
            SpaceMismatchError: the collection is of another space than the adapter.
            InputError: see `DITSQueryEncoder.encode_query`.
        """
        return list(self._function.encode(input, theirs="the collection"))

    def check(self, collection: Collection) -> None:
        """Refuse a collection of another space, where it is opened with a function other than its own.

        Raises:
            SpaceMismatchError: the collection is of another space than the adapter.
            StoreError: the collection was not created with such a function.
        """
        kept = collection.configuration_json.get("embedding_function") or {}
        if kept.get("name") != self.name():
            raise StoreError(
                f"the collection {collection.name!r} does not say which embedding space its vectors live in; "
                "create it with embedding_function=DITSEmbeddingFunction(…)."
            )
        self._function.require(kept["config"]["space"], theirs=f"the collection {collection.name!r}")

    @staticmethod
    def name() -> str:
        """Return the name under which collections keep the function."""
        return "dits_adapter"

    def default_space(self) -> Space:
        """Return the distance of a new collection."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Return the distances by which queries find videos."""
        return ["cosine"]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as a collection keeps them."""
        return self._function.config()

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse a function for vectors of another space in the place of a collection's own.

        Raises:
            SpaceMismatchError: the spaces differ.
        """
        QueryFunction(**new_config).require(old_config["space"], theirs="the collection")

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> DITSEmbeddingFunction:
        """Return the function that a collection keeps."""
        return DITSEmbeddingFunction(**config)
