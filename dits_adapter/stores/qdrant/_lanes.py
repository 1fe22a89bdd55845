"""A search of a Qdrant collection in one lane or several, as a plan (`_requests`).

Qdrant ranks each lane, and the ranks of videos are fused here: its own fusion ranks segments, of which a video
with one title has as many as it is cut into, and does not say in which lane a hit was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qdrant_client import models

from dits_adapter.errors import StoreError
from dits_adapter.stores._lanes import fuse, lane_request, lane_texts, require_texts
from dits_adapter.stores._like import like_read, like_request, others_like, stored_query
from dits_adapter.stores.bias import BIAS
from dits_adapter.stores.qdrant._collection import QdrantCollection
from dits_adapter.stores.qdrant._finding import finding
from dits_adapter.stores.qdrant._requests import RequestPlan
from dits_adapter.stores.qdrant._schema import said_query, said_vector
from dits_adapter.stores.qdrant._search import BATCH, Search
from dits_adapter.stores.ranking import best_timestamp, bias_weight
from dits_adapter.stores.requests import SEEN, Hit, SearchRequest, check_queries, check_query
from dits_adapter.stores.text_lane import SAID

__all__ = [
    "finding_said",
    "fusing",
    "searching",
    "searching_like",
    "searching_one",
    "text_operations",
    "without_said",
]

_Query = NDArray[np.floating]


def searching_one(
    collection: QdrantCollection, query: ArrayLike, request: SearchRequest
) -> RequestPlan[list[Hit]]:
    """Search for one query, (d,); see `VideoStore.search`."""
    return (yield from searching(collection, check_query(query), request))[0]


def searching(
    collection: QdrantCollection, queries: ArrayLike, request: SearchRequest
) -> RequestPlan[list[list[Hit]]]:
    """Search for each query, (n, d); see `VideoStore.search_batch`."""
    space = yield from collection.opening()
    plan = fusing if request.beyond_seen else finding
    return (yield from plan(collection, check_queries(queries, space.video.width, request), request))


def searching_like(
    collection: QdrantCollection, segment: str | int, request: SearchRequest
) -> RequestPlan[list[Hit]]:
    """Search for what is like a stored segment; see `VideoStore.search_like`."""
    wider = like_request(request)
    stored, _ = yield from collection.reading(like_read(segment))
    itself, vector = stored_query(stored, segment, collection.name)
    hits = yield from searching_one(collection, vector, wider)
    return others_like(hits, itself, request, descending=collection.descending)


def finding_said(
    collection: QdrantCollection, texts: Sequence[str], request: SearchRequest
) -> RequestPlan[list[list[Hit]]]:
    """Search for each text in what is said; see `VideoStore.find_said`."""
    yield from collection.opening()
    return (yield from _said(collection, texts, request))


def fusing(collection: QdrantCollection, queries: _Query, request: SearchRequest) -> RequestPlan[list[list[Hit]]]:
    """Search each lane for checked queries, (n, d), by the fields that group hits, and read those of the page."""
    yield from collection.opening()
    texts, part = lane_texts(request, len(queries)), lane_request(request)
    field = collection.layout.video
    fields = [BIAS] if field is None else [BIAS, field]
    lanes = {}
    for name in request.lanes:
        plan = _seen(collection, queries, part, fields) if name == SEEN else _said(collection, texts, part, fields)
        lanes[name] = yield from plan
    lane = require_texts(collection.texts, collection.name)
    pages = [
        fuse({name: rows[n] for name, rows in lanes.items()}, lane.half(text), request)
        for n, text in enumerate(texts)
    ]
    reader = Search(collection, None, collection.layout.vector)
    ids = [hit.id for page in pages for hit in page]
    payloads = yield from reader.payloads(ids)
    frames = (yield from reader.frames(ids)) if request.locate else {}

    def described(hit: Hit, query: _Query) -> Hit:
        payload = payloads[hit.id] or {}
        found = best_timestamp(frames.get(hit.id), payload.get("timestamps"), query)
        whole = Hit.of(
            hit.id, payload, hit.score, video_id=hit.video_id, timestamp=found, layout=collection.layout
        )
        return replace(whole, lanes=hit.lanes)

    return [
        [described(hit, query) for hit in page if hit.id in payloads]
        for page, query in zip(pages, queries, strict=True)
    ]


def _seen(
    collection: QdrantCollection, queries: _Query, request: SearchRequest, fields: list[str]
) -> RequestPlan[list[list[Hit]]]:
    weight = bias_weight(request, collection.bias)
    search = Search(collection, collection.filter(request), collection.layout.vector, weight, fields)
    hits: list[list[Hit]] = []
    size = search.batch(queries, request)
    for start in range(0, len(queries), size):
        points = yield from collection.following(partial(search.points, queries[start : start + size], request))
        hits += [[search.hit(point, biased=True) for point in row] for row in points]
    return hits


def _said(
    collection: QdrantCollection, texts: Sequence[str], request: SearchRequest, fields: bool | list[str] = True
) -> RequestPlan[list[list[Hit]]]:
    lane = require_texts(collection.texts, collection.name)
    if not collection.has_said:
        raise StoreError(f"{without_said(collection)}; or search it with QdrantStore, which ranks texts itself.")
    search = Search(collection, collection.filter(request), SAID, payload=fields)
    plain = replace(request, min_score=None, exact=False)
    hits: list[list[Hit]] = []
    for start in range(0, len(texts), BATCH):
        queries = [said_query(text, lane) for text in texts[start : start + BATCH]]
        points = yield from collection.following(partial(search.nearest_videos, queries, plain))
        hits += [[search.hit(point) for point in row] for row in points]
    return hits


def without_said(collection: QdrantCollection) -> str:
    """Return the remark on a collection whose points cannot have the sparse vector of their texts."""
    return (
        f"the collection {collection.name!r} was made without the sparse vector {SAID!r}, which Qdrant adds to no "
        "collection afterwards. Copy it to a new one (dits-adapter copy) and put its texts there"
    )


def text_operations(
    texts: Mapping[str | int, str | None], collection: QdrantCollection
) -> list[models.UpdateOperation]:
    """Return the changes of points that keep texts beside them, or take them away, of an opened collection.

    Vectors come first: a text in the payload says, to who goes on after a kill, that its vector is there.
    """
    operations: list[models.UpdateOperation] = []
    kept = {id_: text for id_, text in texts.items() if text is not None}
    gone: list[models.ExtendedPointId] = [id_ for id_, text in texts.items() if text is None]
    lane = collection.texts if collection.has_said else None
    if kept and lane is not None:
        points = [
            models.PointVectors(id=id_, vector={SAID: said_vector(text, lane)}) for id_, text in kept.items()
        ]
        operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=points)))
    if gone and lane is not None:
        deleted = models.DeleteVectors(points=gone, vector=[SAID])
        operations.append(models.DeleteVectorsOperation(delete_vectors=deleted))
    for id_, text in kept.items():
        payload = models.SetPayload(payload={SAID: text}, points=[id_])
        operations.append(models.SetPayloadOperation(set_payload=payload))
    if gone:
        fields = models.DeletePayload(keys=[SAID], points=gone)
        operations.append(models.DeletePayloadOperation(delete_payload=fields))
    return operations
