"""Facts of a collection of another program that only its points tell: how many videos they are of, and whether
its scores are cosines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from qdrant_client import models

from dits_adapter.stores.qdrant._requests import Facet, GetCollection, RequestPlan, Scroll
from dits_adapter.stores.qdrant._schema import group_values

__all__ = ["SAMPLE", "counting_groups", "scores_are_cosines"]

SAMPLE = 100
"""Points that are looked at for their fields and the length of their vectors."""

_UNIT = 0.01
"""Greatest difference of the length of a unit vector from 1, as half precision and other programs leave it."""


def scores_are_cosines(distance: models.Distance, records: Iterable[models.Record], vector: str) -> bool | None:
    """Return whether scores are cosines: by their kind, or as dot products of vectors of unit length.

    Args:
        distance: distance of the vector.
        records: some points, with this vector.
        vector: name of the vector.

    Returns:
        None for dot products where no point has the vector yet.
    """
    if distance != models.Distance.DOT:
        return distance == models.Distance.COSINE
    named = (record.vector if isinstance(record.vector, dict) else {"": record.vector} for record in records)
    lengths = [float(np.linalg.norm(np.asarray(vectors[vector]))) for vectors in named if vectors.get(vector)]
    return bool(np.allclose(lengths, 1, rtol=0, atol=_UNIT)) if lengths else None


def counting_groups(
    collection: str, field: str, condition: models.Filter, *, most: int, page: int, facets: bool
) -> RequestPlan[int]:
    """Count the distinct values of a payload field: by the field's index, or by reading the field of all points.

    Args:
        collection: name of the collection.
        field: name of the field, whose values are strings or whole numbers.
        condition: filter of the points.
        most: greatest number of values that the server may be asked for.
        page: points that one request reads.
        facets: True where this Qdrant lists the values of an index: a server.
    """
    if facets:
        index = (yield from GetCollection(collection_name=collection)).payload_schema.get(field)
        if index is not None and _lists_values(index):
            counted = yield from Facet(collection_name=collection, key=field, facet_filter=condition, limit=most)
            if len(counted.hits) < most:
                return len(counted.hits)
    values: set[str | int] = set()
    request = Scroll(collection_name=collection, scroll_filter=condition, limit=page, with_payload=[field])
    while True:
        records, offset = yield from request
        values.update(value for record in records for value in group_values(record.payload, field))
        if offset is None:
            return len(values)
        request = replace(request, offset=offset)


def _lists_values(index: models.PayloadIndexInfo) -> bool:
    """Return whether a server lists the values of an index: of whole numbers only one for lookups does."""
    if index.data_type == models.PayloadSchemaType.INTEGER:
        return not (isinstance(index.params, models.IntegerIndexParams) and index.params.lookup is False)
    return index.data_type in (models.PayloadSchemaType.KEYWORD, models.PayloadSchemaType.UUID)
