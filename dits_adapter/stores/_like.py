"""Search for what is like a stored segment: the parts that stores which are called, and are awaited, share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError
from dits_adapter.stores.ranking import group_by_video
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import StoredSegment

__all__ = ["like_read", "like_request", "others_like", "stored_query"]


def like_request(request: SearchRequest) -> SearchRequest:
    """Return the search by a segment's vector: a video and a segment more than are asked for, in its own place.

    Raises:
        InputError: lanes or a re-ranking, which are of texts.
    """
    if request.beyond_seen or request.rerank is not None:
        raise InputError("a segment is looked for by its vector; leave out lanes and rerank.")
    return replace(
        request,
        offset=0,
        limit=request.offset + request.limit + 1,
        per_video=request.per_video + 1,
        bias=request.bias or 0.0,
    )


def like_read(segment: str | int) -> ReadRequest:
    """Return the request that reads the segment with its vector."""
    return ReadRequest(field="", values=[str(segment)], limit=1, vectors=True)


def stored_query(
    stored: Iterable[StoredSegment], segment: str | int, collection: str
) -> tuple[str | int, NDArray[np.float32]]:
    """Return the id of the segment that was read, and its vector, (d,).

    Raises:
        InputError: there is none, or it has no vector.
    """
    found = next(iter(stored), None)
    if found is None or found.vector is None:
        raise InputError(f"the collection {collection!r} has no segment {str(segment)[:60]!r} with a vector.")
    return found.id, found.vector


def others_like(hits: Sequence[Hit], itself: str | int, request: SearchRequest, *, descending: bool) -> list[Hit]:
    """Return the hits of the request's page without the segment itself, best video first."""
    others = sorted((hit for hit in hits if hit.id != itself), key=lambda hit: hit.score, reverse=descending)
    return [hit for video in group_by_video(others, lambda hit: (hit.video_id,), request) for hit in video]
