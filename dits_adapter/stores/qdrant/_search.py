"""A search of a Qdrant collection as a plan: the requests that it makes, and the hits that their answers are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from dits_adapter.stores.bias import BIAS
from dits_adapter.stores.qdrant._collection import QdrantCollection
from dits_adapter.stores.qdrant._limits import NUMBER_BYTES, PAYLOAD_BYTES, divided, fitting
from dits_adapter.stores.qdrant._requests import QueryBatch, QueryGroups, RequestPlan, Retrieve
from dits_adapter.stores.qdrant._schema import FRAMES, group_values, matching, plain_id
from dits_adapter.stores.qdrant.options import rescored
from dits_adapter.stores.ranking import (
    CANDIDATES,
    best_timestamp,
    candidate_request,
    group_by_video,
)
from dits_adapter.stores.requests import Hit, SearchRequest
from dits_adapter.stores.text_lane import SAID

__all__ = ["BATCH", "Search"]

BATCH = 64
"""Queries sent in one request, at most: fewer where they, or what they find, are large."""

_Query = NDArray[np.floating]

_Value = list[float] | models.SparseVector
"""Query as Qdrant takes it."""


class Search:
    """Searches of an opened collection that share a filter, a vector and the weight of the score bias.

    Args:
        collection: the collection.
        condition: filter of all searches.
        vector: name of the vector that is searched.
        weight: weight of the score bias.
        payload: fields of the payload that found points have, those that group them among them; True for all.
    """

    def __init__(
        self,
        collection: QdrantCollection,
        condition: models.Filter | None,
        vector: str,
        weight: float = 0.0,
        payload: bool | list[str] = True,
    ) -> None:
        self.collection = collection
        self.condition = condition
        self.vector = vector or None
        self.weight = weight
        self.payload = payload

    def points(self, queries: _Query, request: SearchRequest) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Find the best videos of each query, (n, d), by cosine less bias."""
        if self.weight:
            return (yield from self._biased(queries, request))
        return (yield from self.nearest_videos(queries.tolist(), request))

    def nearest_videos(
        self, queries: Sequence[_Value], request: SearchRequest
    ) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Find the best videos of each query by their nearest segments."""
        if self.collection.layout.video is None:
            return (yield from self._nearest(queries, request, request.limit, request.offset))
        # Most queries have enough videos among a few times as many segments, which cost a server half of what its
        # grouping costs; the others are searched again.
        reach = self._reach(request)
        rows = []
        for query, points in zip(queries, (yield from self._nearest(queries, request, reach)), strict=True):
            page, complete = self._page(points, reach, request)
            rows.append(page if complete else (yield from self._grouped(query, request)))
        return rows

    def whole_videos(self, query: _Query, request: SearchRequest) -> RequestPlan[list[models.ScoredPoint]]:
        """Find the best videos of one query, (d,), with as many of their segments as are asked for, in groups."""
        if self.weight:
            return (yield from self._biased(query[None], request))[0]
        return (yield from self._grouped(query.tolist(), request))

    def _page(
        self, points: Sequence[models.ScoredPoint], reach: int, request: SearchRequest
    ) -> tuple[list[models.ScoredPoint], bool]:
        """Return the points of the page among the best ones; False where points behind them could change it."""
        videos = group_by_video(points, self.videos, request)
        full = len(videos) == request.limit and all(len(hits) == request.per_video for hits in videos)
        return [point for hits in videos for point in hits], full or len(points) < reach

    def batch(self, queries: _Query, request: SearchRequest) -> int:
        """Return how many queries one request takes."""
        found = request if request.rerank is None else candidate_request(request)
        return fitting(NUMBER_BYTES * queries.shape[1] + PAYLOAD_BYTES * self._reach(found), BATCH)

    def _reach(self, request: SearchRequest) -> int:
        """Return how many segments of a query are looked at for its videos, in a batch."""
        return CANDIDATES if self.weight else min(self._several(request), self.collection.limits.hits)

    def _several(self, request: SearchRequest) -> int:
        """Return how many segments mostly hold those of the videos that are asked for."""
        return 2 * (request.offset + request.limit) * request.per_video + 10

    def _nearest(
        self,
        queries: Sequence[_Value],
        request: SearchRequest,
        limit: int,
        offset: int = 0,
        payload: list[str] | None = None,
        beyond: Collection[str | int] = (),
    ) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Find the segments nearest to each query, in as many requests as the server's limit of hits makes.

        Args:
            queries, request, limit, offset: as for a search.
            payload: fields, in the place of those of all searches.
            beyond: videos to leave out.
        """
        scope = self._scope(beyond)
        rows: list[list[models.ScoredPoint]] = [[] for _ in queries]
        most = self.collection.limits.hits
        for start in range(0, limit, most):
            requests = [
                models.QueryRequest(
                    query=query,
                    using=self.vector,
                    limit=min(most, limit - start),
                    offset=offset + start,
                    filter=scope,
                    score_threshold=request.min_score,
                    params=self._search_params(request),
                    with_payload=payload or self.payload,
                )
                for query in queries
            ]
            for row, answer in zip(rows, (yield from self.answers(requests)), strict=True):
                row += answer.points
        return rows

    def answers(self, requests: Sequence[models.QueryRequest]) -> RequestPlan[list[models.QueryResponse]]:
        """Make several searches, in as many requests as the size of their vectors, and the server, ask for."""
        assert self.collection.opened is not None
        size = fitting(NUMBER_BYTES * self.collection.opened.video.width, max(1, len(requests)))
        answers: list[models.QueryResponse] = []
        for start in range(0, len(requests), size):
            for part in (yield from divided(requests[start : start + size], self._query_batch)):
                answers += part
        return answers

    def _query_batch(self, requests: Sequence[models.QueryRequest]) -> QueryBatch:
        return QueryBatch(collection_name=self.collection.target, requests=requests)

    def _scope(self, beyond: Collection[str | int] = ()) -> models.Filter | None:
        """Return the filter of the searches, which leaves these videos out."""
        scope, field = self.collection.scoped(self.condition), self.collection.layout.video
        if not beyond or field is None:
            return scope
        return models.Filter(must=scope, must_not=matching(field, beyond, self.collection.limits.values))

    def _biased(self, queries: _Query, request: SearchRequest) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Find the best videos by cosine less bias.

        The `CANDIDATES` segments of the best cosines are ordered anew, by the server where it can. Where they are
        of too few videos, as many of other videos follow behind them, and so on: every page is of one order, and
        one query is answered as many are.
        """
        if not self.collection.formulas:
            return (yield from self._corrected_here(queries, request))
        rows = []
        for query, row in zip(queries, (yield from self._corrected_there(queries, request)), strict=True):
            rows.append((yield from self._corrected_here(query[None], request))[0] if row is None else row)
        return rows

    def _corrected_there(
        self, queries: _Query, request: SearchRequest
    ) -> RequestPlan[list[list[models.ScoredPoint] | None]]:
        """Order the candidates in the server; None for a query whose page needs more of them than it returned."""
        bias, reach = self.collection.bias, min(CANDIDATES, self._several(request))
        assert bias is not None
        formula = models.FormulaQuery(
            formula=models.SumExpression(sum=["$score", models.MultExpression(mult=[-self.weight, BIAS])]),
            defaults={BIAS: bias.mean},
        )
        requests = [
            models.QueryRequest(
                prefetch=models.Prefetch(
                    query=query.tolist(),
                    using=self.vector,
                    limit=CANDIDATES,
                    filter=self._scope(),
                    score_threshold=request.min_score,
                    params=self._search_params(request),
                ),
                query=formula,
                limit=reach,
                with_payload=self.payload,
            )
            for query in queries
        ]
        rows: list[list[models.ScoredPoint] | None] = []
        for answer in (yield from self.answers(requests)):
            page, complete = self._page(answer.points, reach, request)
            rows.append(page if complete else None)
        return rows

    def _corrected_here(
        self, queries: _Query, request: SearchRequest
    ) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Order the candidates here."""
        field = self.collection.layout.video
        fields = [BIAS] if field is None else [BIAS, field]
        first = yield from self._nearest(queries.tolist(), request, CANDIDATES, payload=fields)
        videos = []
        for n, block in enumerate(first):
            ranked = self._corrected(block)
            page = group_by_video(ranked, self.videos, request)
            while len(block) == CANDIDATES and len(page) < request.limit:
                named = [self.videos(point) if field else [] for point in ranked]
                (block,) = yield from self._nearest(
                    queries[n : n + 1].tolist(),
                    request,
                    CANDIDATES,
                    named.count([]),  # which no filter leaves out
                    payload=fields,
                    beyond={video for names in named for video in names},
                )
                ranked += self._corrected(block)
                page = group_by_video(ranked, self.videos, request)
            videos.append(page)
        rows = [[point for hits in page for point in hits] for page in videos]
        payloads = yield from self.payloads(point.id for row in rows for point in row)
        return [
            [point.model_copy(update={"payload": payloads[point.id]}) for point in row if point.id in payloads]
            for row in rows
        ]

    def _corrected(self, points: Sequence[models.ScoredPoint]) -> list[models.ScoredPoint]:
        corrected = [p.model_copy(update={"score": p.score - self._bias(p.payload)}) for p in points]
        return sorted(corrected, key=lambda point: -point.score)

    def _bias(self, payload: Mapping[str, Any] | None) -> float:
        bias = self.collection.bias
        return self.weight * bias.of(payload) if self.weight and bias is not None else 0.0

    def payloads(
        self, ids: Iterable[models.ExtendedPointId]
    ) -> RequestPlan[dict[models.ExtendedPointId, models.Payload | None]]:
        distinct = list(dict.fromkeys(ids))
        payloads: dict[models.ExtendedPointId, models.Payload | None] = {}
        size = self.collection.page()
        for start in range(0, len(distinct), size):
            chosen = distinct[start : start + size]
            records = yield from Retrieve(collection_name=self.collection.target, ids=chosen, with_payload=True)
            payloads |= {record.id: record.payload for record in records}
        return payloads

    def _grouped(self, query: _Value, request: SearchRequest) -> RequestPlan[list[models.ScoredPoint]]:
        """Find the best videos.

        To find groups a server looks at a few times as many points as it is to return, and returns fewer groups
        where some of them have more points than that near the query: it is asked again, without those groups.
        """
        field = self.collection.layout.video
        assert field is not None
        needed = request.offset + request.limit
        groups: dict[str | int, models.PointGroup] = {}
        while len(groups) < needed:
            answer = yield from QueryGroups(
                collection_name=self.collection.target,
                group_by=field,
                group_size=request.per_video,
                query=query,
                using=self.vector,
                limit=max(1, min(needed - len(groups), self.collection.limits.hits // request.per_video)),
                query_filter=self._scope(groups),
                score_threshold=request.min_score,
                search_params=self._search_params(request),
                with_payload=self.payload,
            )
            # a video of a list of names comes back by another of them
            fresh = {group.id: group for group in answer.groups if group.id not in groups}
            if not fresh:
                break
            groups |= fresh
        # an approximate index may find late what is nearer
        descending = self.vector == SAID or self.collection.descending
        best = sorted(groups.values(), key=lambda group: group.hits[0].score, reverse=descending)
        return [point for group in best[request.offset :] for point in group.hits]

    def videos(self, point: models.ScoredPoint) -> list[str | int]:
        """Return the videos that a point is of, usually one."""
        field = self.collection.layout.video
        return [plain_id(point.id)] if field is None else group_values(point.payload, field)

    def _search_params(self, request: SearchRequest) -> models.SearchParams | None:
        if self.vector == SAID:
            corpus = self.collection.scoped()  # the idf of other tenants' texts would tell of their words
            return None if corpus is None else models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus))
        if not self.collection.takes_params:
            return None
        if request.exact:
            return models.SearchParams(exact=True)
        return rescored(self.collection.limits.oversampling) if self.collection.quantized else None

    def frames(self, hits: Iterable[models.ExtendedPointId]) -> RequestPlan[dict[models.ExtendedPointId, Any]]:
        """Read the frame vectors of hits only: read by the search itself, memory copies everybody's."""
        ids = list(dict.fromkeys(hits))
        if not self.collection.has_frames:
            return {}
        frames: dict[models.ExtendedPointId, Any] = {}
        size = self.collection.page(frames=True)
        for start in range(0, len(ids), size):
            records = yield from Retrieve(
                collection_name=self.collection.target, ids=ids[start : start + size], with_vectors=[FRAMES]
            )
            vectors = {r.id: r.vector for r in records if isinstance(r.vector, dict)}
            frames |= {id_: named[FRAMES] for id_, named in vectors.items() if FRAMES in named}
        return frames

    def hit(
        self, point: models.ScoredPoint, frames: Any = None, query: _Query | None = None, *, biased: bool = False
    ) -> Hit:
        payload = point.payload or {}
        return Hit.of(
            plain_id(point.id),
            payload,
            point.score,
            video_id=next(iter(self.videos(point)), None),
            timestamp=None if query is None else best_timestamp(frames, payload.get("timestamps"), query),
            layout=self.collection.layout,
            bias=self._bias(payload) if biased else 0.0,
        )
