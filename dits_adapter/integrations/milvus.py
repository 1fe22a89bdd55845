"""Embedding function of queries for Milvus, in the convention of `pymilvus.model`, which it does not need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from dits_adapter._wording import validated
from dits_adapter.errors import StoreError
from dits_adapter.integrations._documents import no_documents
from dits_adapter.integrations._functions import QueryFunction
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.vectors import FloatArray

if TYPE_CHECKING:
    from pymilvus import MilvusClient  # type: ignore[import-untyped]

__all__ = ["DITSEmbeddingFunction"]

_KEPT = "dits_adapter_query"
"""Property of a collection that holds its function."""

_OURS = "dits_adapter"
"""Property of a collection that `MilvusStore` made or adopted."""


class DITSEmbeddingFunction:
    """Embedding function of queries; documents are refused, since videos are stored by their vectors.

    Milvus keeps no functions of its clients: `save` writes the adapter's name and options, with the space of the
    vectors, into the properties of a collection, and `of` makes the function from them.

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

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._function.width

    def __call__(self, texts: Iterable[str]) -> list[FloatArray]:
        """Refuse texts, of which it is not said whether they are documents.

        Raises:
            InputError: always.
        """
        raise no_documents("the embedding function")

    def encode_queries(self, queries: Iterable[str]) -> list[FloatArray]:
        """Embed queries on the video side: a unit vector (d,) float32 of each.

        Raises:
            SpaceMismatchError: the collection is of another space than the adapter.
            InputError: see `DITSQueryEncoder.encode_query`.
        """
        return list(self._function.encode(queries, theirs="the collection"))

    def encode_documents(self, documents: Iterable[str]) -> list[FloatArray]:
        """Refuse texts as documents.

        Raises:
            InputError: always.
        """
        raise no_documents("encode_documents")

    def save(self, client: MilvusClient, collection: str) -> None:
        """Write the function into the properties of a collection, for `of`.

        Raises:
            SpaceMismatchError: the collection says that it is of another space.
        """
        ours = _properties(client, collection).get(_OURS)
        if ours is not None:
            metadata = validated(CollectionMetadata, ours)
            self._function.require(metadata.space.video, theirs=f"the collection {collection!r}")
        client.alter_collection_properties(collection, {_KEPT: json.dumps(self._function.config())})

    @classmethod
    def of(cls, client: MilvusClient, collection: str) -> DITSEmbeddingFunction:
        """Return the function that a collection keeps.

        Raises:
            StoreError: the collection keeps none.
        """
        kept = _properties(client, collection).get(_KEPT)
        if kept is None:
            raise StoreError(
                f"the collection {collection!r} keeps no embedding function; write one with "
                "DITSEmbeddingFunction(…).save(client, collection)."
            )
        return cls(**json.loads(kept))


def _properties(client: MilvusClient, collection: str) -> Mapping[str, str]:
    return client.describe_collection(collection).get("properties") or {}
