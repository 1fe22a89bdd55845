"""Adoption of a collection that another program made, in any database: described once, then searched like ours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dits_adapter._wording import no_cosines
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._table_store import TableStore
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout

if TYPE_CHECKING:
    from dits_adapter.stores.qdrant.store import QdrantStore

__all__ = ["adopt_collection", "vector_width"]

_QDRANT = "dits_adapter.stores.qdrant.store"
"""Module of Qdrant's store, whose client an installation may lack."""


def adopt_collection(store: VideoStore, space: EmbeddingSpace, layout: PointLayout) -> CollectionMetadata:
    """Write into a collection of another program what its vectors and payload fields, or columns, are.

    The description goes into the collection's metadata, under a key of its own, or beside the table. No segment is
    changed, and the other program goes on as before. Done again, it replaces the description; texts beside the
    segments stay, and a score bias where space and vector are the same. Where scores are no cosines, a warning
    says so: of other distances, and of dot products of vectors that are not of unit length.

    Args:
        store: the collection, in Qdrant, PostgreSQL, Milvus or LanceDB.
        space: the embedding space of its vectors; that it is this one cannot be checked beyond the width.
        layout: names of the vector and of the payload fields, or columns.

    Returns:
        The description.

    Raises:
        InputError: a vector, field or column that the collection has not, or a store of another kind.
        SpaceMismatchError: the vector is of another width than the space.
        StoreError: no such collection, one of ours, or a server that keeps no metadata (Qdrant before 1.16).
    """
    if isinstance(store, TableStore):
        return store.adopt(space, layout)
    qdrant = _as_qdrant(store)
    from dits_adapter.stores.qdrant._adopt import adopt_points

    metadata = adopt_points(qdrant, space, layout)
    if metadata.cosine is False:
        warnings.warn(no_cosines(store.name), stacklevel=2)
    return metadata


def vector_width(store: VideoStore, vector: str = "") -> int:
    """Return the width of a vector of the collection of another program; "" is the unnamed or the only one.

    Raises:
        InputError: the collection has no such vector, or many of it a point, or a store of another kind.
        StoreError: no such collection.
    """
    if isinstance(store, TableStore):
        return store.vector_width(vector)
    qdrant = _as_qdrant(store)
    from dits_adapter.stores.qdrant._adopt import width_of

    return width_of(qdrant, vector)


def _as_qdrant(store: VideoStore) -> QdrantStore:
    if any(kind.__module__ == _QDRANT for kind in type(store).__mro__):
        from dits_adapter.stores.qdrant.store import QdrantStore

        if isinstance(store, QdrantStore):
            return store
    raise InputError(f"a collection in a {type(store).__name__} is made by this package alone, not adopted.")
