"""Changes of points as Edge takes them: a filter and a list of ids are two operations there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from dits_adapter.errors import InputError
from dits_adapter.stores.qdrant.edge import _convert as convert

__all__ = ["change", "deletion", "payload_change", "payload_deletion", "vectors_deletion"]


def deletion(selector: Any) -> edge.UpdateOperation:
    """Return the deletion of points, chosen by a filter or by their ids."""
    chosen = _chosen(selector)
    if isinstance(chosen, edge.Filter):
        return edge.UpdateOperation.delete_points_by_filter(chosen)
    return edge.UpdateOperation.delete_points(chosen)


def payload_change(payload: Mapping[str, Any], points: Any, key: str | None) -> edge.UpdateOperation:
    """Return the setting of payload fields of points, chosen by a filter or by their ids."""
    chosen, fields = _chosen(points), dict(payload)
    if isinstance(chosen, edge.Filter):
        return edge.UpdateOperation.set_payload_by_filter(chosen, fields, key=key)
    return edge.UpdateOperation.set_payload(chosen, fields, key=key)


def payload_deletion(keys: Sequence[str], points: Any) -> edge.UpdateOperation:
    """Return the deletion of payload fields of points, chosen likewise."""
    chosen = _chosen(points)
    if isinstance(chosen, edge.Filter):
        return edge.UpdateOperation.delete_payload_by_filter(chosen, list(keys))
    return edge.UpdateOperation.delete_payload(chosen, list(keys))


def vectors_deletion(names: Sequence[str], points: Any) -> edge.UpdateOperation:
    """Return the deletion of vectors of points, chosen likewise."""
    chosen = _chosen(points)
    if isinstance(chosen, edge.Filter):
        return edge.UpdateOperation.delete_vectors_by_filter(chosen, list(names))
    return edge.UpdateOperation.delete_vectors(chosen, list(names))


def change(operation: models.UpdateOperation) -> edge.UpdateOperation:
    """Return a change of a batch.

    Raises:
        InputError: a change of something else than payload and vectors, or chosen by a filter.
    """
    if isinstance(operation, models.SetPayloadOperation):
        fields = operation.set_payload
        chosen = fields.filter if fields.points is None else fields.points
        return payload_change(fields.payload, chosen, fields.key)
    if isinstance(operation, models.DeletePayloadOperation) and operation.delete_payload.points is not None:
        ids = [convert.point_id(id_) for id_ in operation.delete_payload.points]
        return edge.UpdateOperation.delete_payload(ids, list(operation.delete_payload.keys))
    if isinstance(operation, models.UpdateVectorsOperation) and operation.update_vectors.update_filter is None:
        return edge.UpdateOperation.update_vectors(
            [convert.point_vectors(point) for point in operation.update_vectors.points]
        )
    if isinstance(operation, models.DeleteVectorsOperation) and operation.delete_vectors.points is not None:
        ids = [convert.point_id(id_) for id_ in operation.delete_vectors.points]
        return edge.UpdateOperation.delete_vectors(ids, list(operation.delete_vectors.vector))
    raise InputError(f"a folder takes no such {type(operation).__name__} in a batch; make it by itself.")


def _chosen(selector: Any) -> edge.Filter | list[edge.PointId]:
    if isinstance(selector, models.FilterSelector):
        selector = selector.filter
    if isinstance(selector, models.Filter):
        converted = convert.filter_(selector)
        assert converted is not None
        return converted
    if isinstance(selector, models.PointIdsList):
        selector = selector.points
    if not isinstance(selector, list | tuple):
        selector = [selector]
    return [convert.point_id(id_) for id_ in selector]
