"""A search of a Qdrant collection for what is seen, as a plan: found, re-ranked by frames, and located."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from dits_adapter.errors import StoreError
from dits_adapter.stores.qdrant._collection import QdrantCollection
from dits_adapter.stores.qdrant._requests import RequestPlan
from dits_adapter.stores.qdrant._schema import FRAMES
from dits_adapter.stores.qdrant._search import Search
from dits_adapter.stores.ranking import (
    bias_weight,
    candidate_request,
    frame_scores,
    group_by_video,
    wider_candidate_request,
)
from dits_adapter.stores.requests import Hit, Reranker, SearchRequest

__all__ = ["finding"]

_Query = NDArray[np.floating]


def finding(collection: QdrantCollection, queries: _Query, request: SearchRequest) -> RequestPlan[list[list[Hit]]]:
    """Search for each of checked queries, (n, d); see `VideoStore.find`."""
    yield from collection.opening()
    if request.rerank is not None and not collection.has_frames:
        raise StoreError(f"the collection {collection.name!r} has no frame vectors to re-rank with.")
    weight = bias_weight(request, collection.bias)
    if collection.descending:  # a dot product is of the query's length, too
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    search = Search(collection, collection.filter(request), collection.layout.vector, weight)
    hits: list[list[Hit]] = []
    size = search.batch(queries, request)
    for start in range(0, len(queries), size):
        batch = queries[start : start + size]
        if request.rerank is None:
            plan = partial(search.points, batch, request)
        else:
            plan = partial(_reranked, search, batch, request, request.rerank)
        points = yield from collection.following(plan)
        frames: dict[models.ExtendedPointId, Any] = {}
        if request.locate:
            frames = yield from search.frames(point.id for row in points for point in row)
        hits += [
            [search.hit(point, frames.get(point.id), query, biased=request.rerank is None) for point in row]
            for query, row in zip(batch, points, strict=True)
        ]
    return hits


def _reranked(
    search: Search, queries: _Query, request: SearchRequest, rerank: Literal["maxsim"] | Reranker
) -> RequestPlan[list[list[models.ScoredPoint]]]:
    """Order candidates anew by their frames; the points of the request's page for each query, (n, d)."""
    rows = yield from _candidates(search, queries, request)
    if callable(rerank) or not search.collection.limits.exact:  # frames have no index
        scores = []
        for query, row in zip(queries, rows, strict=True):
            scores.append((yield from _scored(search, query, row, rerank)))
    else:
        scores = yield from _maxsim(search, queries, rows)
    if any(rows) and not any(scores):
        raise StoreError(f"the segments of {search.collection.name!r} have no frame vectors to re-rank with.")
    reranked = []
    for row, scored in zip(rows, scores, strict=True):
        points = {point.id: point for point in row}
        ranked = [points[id_].model_copy(update={"score": score}) for id_, score in scored.items()]
        videos = group_by_video(ranked, search.videos, request)
        reranked.append([point for hits in videos for point in hits])
    return reranked


def _candidates(
    search: Search, queries: _Query, request: SearchRequest
) -> RequestPlan[list[list[models.ScoredPoint]]]:
    """Find the segments to re-rank, spread over videos: a long one has hundreds of segments near a query."""
    rows = yield from search.points(queries, candidate_request(request))
    if search.collection.layout.video is not None:
        for n, row in enumerate(rows):
            videos = len({video for point in row for video in search.videos(point)})
            if (wider := wider_candidate_request(request, videos)) is not None:
                rows[n] = yield from search.whole_videos(queries[n], wider)
    return rows


def _maxsim(
    search: Search, queries: _Query, rows: Sequence[Sequence[models.ScoredPoint]]
) -> RequestPlan[list[dict[models.ExtendedPointId, float]]]:
    """Score segments by their frame that is nearest to the query, in the server; best first."""
    limits = search.collection.limits
    most = min(limits.hits, limits.values)
    pieces = [
        (n, [point.id for point in row[start : start + most]])
        for n, row in enumerate(rows)
        for start in range(0, len(row), most)
    ]
    requests = [
        models.QueryRequest(
            query=[queries[n].tolist()],
            using=FRAMES,
            filter=models.Filter(must=[models.HasIdCondition(has_id=ids)]),
            limit=len(ids),
            with_payload=False,
        )
        for n, ids in pieces
    ]
    scores: list[dict[models.ExtendedPointId, float]] = [{} for _ in rows]
    for (n, _), answer in zip(pieces, (yield from search.answers(requests)), strict=True):
        scores[n] |= {point.id: point.score for point in answer.points}
    return [dict(sorted(row.items(), key=lambda item: -item[1])) for row in scores]


def _scored(
    search: Search,
    query: _Query,
    points: Sequence[models.ScoredPoint],
    rerank: Literal["maxsim"] | Reranker,
) -> RequestPlan[dict[models.ExtendedPointId, float]]:
    """Score segments by their frame vectors, which are read; best first."""
    frames = yield from search.frames(point.id for point in points)
    scores = frame_scores(rerank, query, [np.asarray(vectors, np.float32) for vectors in frames.values()])
    ids = list(frames)
    return {ids[n]: float(scores[n]) for n in np.argsort(-scores, kind="stable")}
