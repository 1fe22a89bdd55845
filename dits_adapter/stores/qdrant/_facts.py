"""Facts of a Qdrant collection that both of its doors tell: `QdrantStore` and `AsyncQdrantStore`."""

from __future__ import annotations

from qdrant_client import models

from dits_adapter.stores.qdrant._collection import QdrantCollection

__all__ = ["CollectionFacts"]


class CollectionFacts:
    """Facts of a collection, meaningful once it was opened."""

    _collection: QdrantCollection

    @property
    def collection(self) -> str:
        """Name of the collection behind `name`, once an alias is resolved."""
        return self._collection.target

    @property
    def vector(self) -> str:
        """Name of the vector that is searched; meaningful once the collection was opened."""
        return self._collection.layout.vector

    @property
    def cosine(self) -> bool:
        """True if scores are cosines; meaningful once the collection was opened."""
        return self._collection.cosine

    @property
    def descending(self) -> bool:
        """True if a higher score is a nearer one, and False for distances; meaningful once opened."""
        return self._collection.descending

    def scoped(self, condition: models.Filter | None = None) -> models.Filter | None:
        """Confine a filter to the store's tenant, for requests of your own through `client`."""
        return self._collection.scoped(condition)
