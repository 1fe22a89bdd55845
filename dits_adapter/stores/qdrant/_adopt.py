"""Adoption of a collection that another program made: described once, then searched like one of ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from dits_adapter._wording import no_such_vector
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout, payload_fields, payload_value
from dits_adapter.stores.qdrant._requests import GetCollection, Scroll, UpdateCollection
from dits_adapter.stores.qdrant._schema import METADATA_KEY, group_values, named_vectors
from dits_adapter.stores.qdrant._survey import SAMPLE, scores_are_cosines
from dits_adapter.stores.qdrant.store import QdrantStore

__all__ = ["adopt_points", "width_of"]


def adopt_points(store: QdrantStore, space: EmbeddingSpace, layout: PointLayout) -> CollectionMetadata:
    """Write into a collection of another program what its vectors and payload fields are.

    The description goes into the collection's metadata, under a key of its own. No point is changed, and the other
    program goes on as before. Done again, it replaces the description; texts beside the segments stay, and a score
    bias where space and vector are the same. Where they are not, a warning says that the bias is gone.

    Args:
        store: the collection.
        space: the embedding space of its vectors; that it is this one cannot be checked beyond the width.
        layout: names of the vector and the payload fields.

    Returns:
        The description.

    Raises:
        InputError: a vector that the collection has not, or a payload field that none of its first 100 points has.
        SpaceMismatchError: the vector is of another width than the space.
        StoreError: no such collection, one of ours, or the server keeps no collection metadata (before 1.16).
    """
    name = store.resolve()
    if name is None:
        raise StoreError(f"{store.location} has no collection {store.name!r}.")
    owned = QdrantStore(store.client, name)
    existing = owned.metadata()
    if existing is not None and existing.layout is None:
        raise StoreError(f"the collection {store.name!r} was made by dits_adapter, and is described already.")
    params = _params_of(store, layout.vector)
    if params.size != space.video.width:
        raise SpaceMismatchError(
            f"the vector {layout.vector!r} of the collection {store.name!r} has width {params.size}; the encoder "
            f"has {space.video.width} ({space})."
        )
    records, _ = store.send(
        Scroll(collection_name=name, limit=SAMPLE, with_vectors=[layout.vector] if layout.vector else True)
    )
    _require_fields(store, [record.payload or {} for record in records], layout)
    cosine = scores_are_cosines(params.distance, records, layout.vector)
    metadata = CollectionMetadata(space=space, layout=layout, cosine=cosine, **_kept(existing, space, layout))
    described = {METADATA_KEY: metadata.model_dump(mode="json")}
    store.send(UpdateCollection(collection_name=name, metadata=described))
    if owned.metadata() is None:
        raise StoreError(
            f"{store.location} runs Qdrant {store.client.info().version}, which keeps no collection metadata. Use "
            "Qdrant 1.16 or newer, or describe the collection at each search (trust_foreign)."
        )
    if existing is not None and existing.bias is not None and metadata.bias is None:
        warnings.warn(
            f"the score bias of {store.name!r} was of other vectors than are described now, and is gone; "
            "`dits-adapter bias` makes one for these.",
            stacklevel=3,
        )
    return metadata


def _kept(existing: CollectionMetadata | None, space: EmbeddingSpace, layout: PointLayout) -> dict[str, Any]:
    """Return what of an earlier description still holds: texts, and the score bias of the same vectors."""
    if existing is None or existing.layout is None:
        return {}
    same = existing.space == space and existing.layout.vector == layout.vector
    return {"texts": existing.texts, "bias": existing.bias if same else None}


def width_of(store: QdrantStore, vector: str) -> int:
    """Return the width of a vector of the collection.

    Raises:
        InputError: the collection has no such vector, or many of it a point.
        StoreError: no such collection.
    """
    return int(_params_of(store, vector).size)


def _params_of(store: QdrantStore, vector: str) -> models.VectorParams:
    """Return the parameters of a vector of the collection; as `width_of`."""
    name = store.resolve()
    if name is None:
        raise StoreError(f"{store.location} has no collection {store.name!r}.")
    vectors = named_vectors(store.send(GetCollection(collection_name=name)).config.params)
    params = vectors.get(vector)
    if params is None:
        raise InputError(no_such_vector(store.name, vector, vectors))
    if params.multivector_config is not None:
        raise InputError(
            f"the vector {vector!r} of the collection {store.name!r} has many vectors a point; name one that has "
            "one."
        )
    return params


def _require_fields(store: QdrantStore, payloads: Sequence[Mapping[str, Any]], layout: PointLayout) -> None:
    """Refuse fields that none of the first points has; those of the defaults may be missing."""
    chosen = {kind: getattr(layout, kind) for kind in layout.model_fields_set - {"vector", "texts"}}
    fields = [field for field in [*chosen.values(), *layout.texts] if field]
    for field in fields if payloads else []:
        if all(payload_value(payload, field) is None for payload in payloads):
            names = (
                ", ".join(sorted({name for payload in payloads for name, _ in payload_fields(payload)})) or "none"
            )
            raise InputError(
                f"none of the first {len(payloads)} points of {store.name!r} has a payload field {field!r}; their "
                f"fields are {names}."
            )
    video = layout.video
    if video is not None and payloads and not any(group_values(payload, video) for payload in payloads):
        raise InputError(
            f"the payload field {video!r} of {store.name!r} holds neither strings nor whole numbers, which "
            "alone say which video a point belongs to."
        )
