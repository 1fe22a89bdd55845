"""Sizes of requests and answers: in bytes, within strict mode, and divided until a server takes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from dits_adapter.errors import StoreError
from dits_adapter.stores.qdrant._requests import Request, RequestPlan, Upsert

__all__ = ["NUMBER_BYTES", "PAYLOAD_BYTES", "Limits", "divided", "fitting", "storing"]

T = TypeVar("T")
Answer = TypeVar("Answer")

_REQUEST_BYTES = 16 << 20
"""Bytes of JSON in one request or answer, about. A server takes 32 MB; what it refuses is halved."""

NUMBER_BYTES = 22
"""Bytes of JSON that a component of a vector takes at most."""

PAYLOAD_BYTES = 1024
"""Bytes of JSON that the payload of a segment takes, about."""

_TOO_LARGE = re.compile(r"larger than allowed|Limit exceeded \d+ > \d+ for \W+upsert limit")
"""Answers, with status 400, to a request with too many bytes or, in strict mode, points."""


@dataclass(frozen=True)
class Limits:
    """Limits of a collection in strict mode; without it there are none.

    Attributes:
        hits: points that one request may return.
        values: values that one condition of a filter may have.
        exact: True where exact searches and counts are allowed.
        oversampling: factor by which a search of quantized vectors may oversample.
    """

    hits: int = 1 << 31
    values: int = 1 << 31
    exact: bool = True
    oversampling: float = math.inf

    @classmethod
    def of(cls, info: models.CollectionInfo) -> Limits:
        """Read the limits of a collection."""
        strict = info.config.strict_mode_config
        if strict is None or not strict.enabled:
            return cls()
        return cls(
            strict.max_query_limit or cls.hits,
            strict.condition_max_size or cls.values,
            strict.search_allow_exact is not False,
            strict.search_max_oversampling or cls.oversampling,
        )


def fitting(bytes_each: int, most: int) -> int:
    """Return how many things of a size one request or answer holds: at least one, and at most this many."""
    return max(1, min(most, _REQUEST_BYTES // bytes_each))


def _batches_of_points(points: Iterable[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
    """Divide points, in their order, into those of one request each."""
    batch: list[models.PointStruct] = []
    size = 0
    for point in points:
        bytes_of_point = _size(point)
        if batch and size + bytes_of_point > _REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += bytes_of_point
    if batch:
        yield batch


def _size(point: models.PointStruct) -> int:
    named: Any = point.vector if isinstance(point.vector, dict) else {"": point.vector}
    numbers = sum(_numbers(vector) for vector in named.values())
    return NUMBER_BYTES * numbers + len(json.dumps(point.payload, default=str))


def _numbers(vector: Any) -> int:
    if not isinstance(vector, Sequence):
        return int(np.size(vector))
    return sum(map(_numbers, vector)) if vector and isinstance(vector[0], Sequence) else len(vector)


def _refuses_size(error: UnexpectedResponse) -> bool:
    """Return whether a request was refused for its size: by the server, or by a proxy before it."""
    return error.status_code == 413 or bool(_TOO_LARGE.search(error.content.decode("utf-8", "replace")))


def storing(collection: str, points: Sequence[models.PointStruct]) -> RequestPlan[None]:
    """Store points in as many requests as their bytes, and the server, ask for."""
    for batch in _batches_of_points(points):
        try:
            yield from divided(batch, lambda part: Upsert(collection_name=collection, points=part))
        except UnexpectedResponse as error:
            if not _refuses_size(error):
                raise
            raise StoreError(
                "the server, or a proxy before it, refuses a single segment for its size. Let it take more "
                "(service.max_request_size_mb of Qdrant, client_max_body_size of nginx), or give a segment fewer "
                f"frames. It answers {error.status_code}: {error.content.decode('utf-8', 'replace')[:200].strip()}"
            ) from error


def divided(items: Sequence[T], request: Callable[[Sequence[T]], Request[Answer]]) -> RequestPlan[list[Answer]]:
    """Make a request of many items, of half of them where the server refuses it for its size, and so on.

    Returns:
        The answers, in the order of the items.

    Raises:
        UnexpectedResponse: that of a single item, or one that is not about the size.
    """
    try:
        return [(yield from request(items))]
    except UnexpectedResponse as error:
        if len(items) == 1 or not _refuses_size(error):
            raise
    half = len(items) // 2
    first = yield from divided(items[:half], request)
    return first + (yield from divided(items[half:], request))
