"""A search as the requests that it makes of Qdrant and what becomes of the answers.

Written as generators: they yield a method of the client with its arguments and are sent the answer, so that
`QdrantStore` and `AsyncQdrantStore`, whose clients are called differently, search in the same way.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.qdrant.options import RESCORED
from dits_adapter.stores.qdrant.schema import FRAMES, METADATA_KEY, TENANT, CollectionMetadata, Hit

T = TypeVar("T")

Request = tuple[str, dict[str, Any]]
"""A method of the client, and its arguments."""

RequestPlan = Generator[Request, Any, T]

Floats = NDArray[np.floating]

Reranker = Callable[[Sequence[Floats]], Floats]
"""Takes the frame vectors of m segments, each (frames, d), and returns their scores, (m,)."""

CANDIDATES = 100
"""Segments that a re-ranking looks at."""

BATCH = 64
"""Queries sent in one request, 0.7 MB of JSON at d = 512, and segments whose frames are read by one, 8 MB."""


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search, beside the query; see `QdrantStore.search`."""

    limit: int = 10
    per_video: int = 1
    offset: int = 0
    query_filter: models.Filter | None = None
    min_score: float | None = None
    exact: bool = False
    rerank: Literal["maxsim"] | Reranker | None = None
    candidates: int = CANDIDATES
    locate: bool = True

    def __post_init__(self) -> None:
        if self.limit < 1 or self.per_video < 1 or self.offset < 0:
            raise InputError(
                f"limit is {self.limit}, per_video is {self.per_video} and offset is {self.offset}; the first two "
                "are at least 1, the last at least 0."
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InputError(f"min_score is {self.min_score}; it is a number.")
        if not (self.rerank is None or self.rerank == "maxsim" or callable(self.rerank)):
            raise InputError(f'rerank is {self.rerank!r}; it is "maxsim", a function or None.')
        if self.rerank is not None and self.candidates < (self.offset + self.limit) * self.per_video:
            raise InputError(
                f"candidates is {self.candidates}; to re-rank, it is at least (offset + limit) · per_video."
            )


class SearchedCollection:
    """A collection as its searches see it: checked, and pinned to what its alias meant when it was opened.

    Args:
        where: what it is in, for messages.
        collection: its name, or an alias.
        space, vector, video_field, trust_foreign, tenant: as `QdrantStore`.
        takes_params: whether this Qdrant knows search parameters; qdrant-client's local mode does not.

    Attributes:
        target: the collection that the name meant when it was last looked up.
        opened: its space, once it was checked.
        cosine: whether scores are cosines; likewise.
    """

    def __init__(
        self,
        where: str,
        collection: str,
        *,
        space: EmbeddingSpace | None,
        vector: str,
        video_field: str | None,
        trust_foreign: bool,
        tenant: str | None,
        takes_params: bool,
    ) -> None:
        if trust_foreign and space is None:
            raise InputError("trust_foreign needs space=…: the space that the collection is trusted to be of.")
        if tenant == "":
            raise InputError("tenant is empty; give it a name.")
        self.where = where
        self.collection = collection
        self.space = space
        self.vector = vector
        self.video_field = video_field
        self.trust_foreign = trust_foreign
        self.tenant = tenant
        self.takes_params = takes_params
        self.target = collection
        self.opened: EmbeddingSpace | None = None
        self.cosine = False
        self._first: EmbeddingSpace | None = None
        self._has_metadata = self._has_frames = self._quantized = False
        self._descending, self._tenant_checked = True, False

    @overload
    def scoped(self, chosen: models.Filter) -> models.Filter: ...
    @overload
    def scoped(self, chosen: models.Filter | None = None) -> models.Filter | None: ...

    def scoped(self, chosen: models.Filter | None = None) -> models.Filter | None:
        """Confine a filter to the tenant."""
        if self.tenant is None:
            return chosen
        mine = models.FieldCondition(key=TENANT, match=models.MatchValue(value=self.tenant))
        return models.Filter(must=[mine] if chosen is None else [mine, chosen])

    def reading_metadata(self, target: str) -> RequestPlan[CollectionMetadata | None]:
        """Read a collection's stamp; see `QdrantStore.stamp`."""
        if not (yield "collection_exists", {"collection_name": target}):
            names = sorted(c.name for c in (yield "get_collections", {}).collections)
            raise StoreError(
                f"{self.where} has no collection {target!r}; "
                + (f"it has {', '.join(names)}." if names else "it has none at all.")
            )
        info = yield "get_collection", {"collection_name": target}
        metadata = info.config.metadata or {}
        if METADATA_KEY not in metadata:
            return None
        try:
            return CollectionMetadata.model_validate(metadata[METADATA_KEY])
        except ValidationError as error:
            raise StoreError(
                f"the stamp of the collection {self.collection!r} cannot be understood; a newer dits_adapter may "
                f"have written it. {error}"
            ) from error

    def resolving(self) -> RequestPlan[str]:
        """Find out which collection the name means now."""
        try:
            aliases = (yield "get_aliases", {}).aliases
        except UnexpectedResponse as error:
            if error.status_code not in (401, 403):  # a key for one collection may not list them
                raise
            aliases = []
        named = {alias.alias_name: alias.collection_name for alias in aliases}
        return named.get(self.collection, self.collection)

    def opening(self) -> RequestPlan[EmbeddingSpace]:
        """Check the collection, once, and stay with it: an alias may come to mean one of another space.

        Nothing is remembered before all is checked, so that an opening that fails leaves another thread's alone.
        """
        if self.opened is not None:
            return self.opened
        target = yield from self.resolving()
        stamp = yield from self.reading_metadata(target)
        if stamp is not None:
            space = stamp.space
            if self.space is not None:
                self.space.require(space, mine="the query", theirs=f"the collection {self.collection!r}")
        elif self.trust_foreign and self.space is not None:
            space = self.space
        else:
            raise StoreError(foreign_collection(self.collection))
        self._check_tenant(stamp)
        kept = (yield "get_collection", {"collection_name": target}).config
        config = kept.params.vectors
        vectors = config if isinstance(config, dict) else {"": config}
        params = vectors.get(self.vector)
        if params is None:
            there = ", ".join(repr(name) for name in vectors)
            raise StoreError(f"the collection {self.collection!r} has no vector {self.vector!r}; it has {there}.")
        if params.size != space.width:
            raise SpaceMismatchError(
                f"the vector {self.vector!r} of the collection {self.collection!r} has width {params.size}; the "
                f"queries have {space.width} ({space})."
            )
        if stamp is None:
            warnings.warn(
                f"the collection {self.collection!r} does not say which embedding space it is of; it is taken to "
                f"be {space}, as you said. Only its width ({params.size}) could be checked, and scores are those "
                f"of its {params.distance.value} distance.",
                stacklevel=4,
            )
        if self._first is not None:  # what was opened before is gone
            self._first.require(space, mine="the query", theirs=f"the collection {self.collection!r} by now")
        self.target, self._first = target, space
        if stamp is not None:
            self.video_field = self.video_field or "video_id"
        self.cosine = params.distance == models.Distance.COSINE
        self._descending = params.distance not in (models.Distance.EUCLID, models.Distance.MANHATTAN)
        self._has_metadata = stamp is not None
        self._has_frames = FRAMES in vectors
        self._quantized = (params.quantization_config or kept.quantization_config) is not None
        self.opened = space
        return space

    def requiring_tenant(self) -> RequestPlan[None]:
        """Refuse, without opening it, a collection that keeps tenants apart where none is named; looks once."""
        if not self._tenant_checked:
            self._check_tenant((yield from self.reading_metadata(self.target)))

    def _check_tenant(self, stamp: CollectionMetadata | None) -> None:
        separate = stamp is not None and stamp.tenants
        if separate and self.tenant is None:
            raise StoreError(f"the collection {self.collection!r} keeps tenants apart: say which, with tenant=….")
        if self.tenant is not None and not separate:
            raise StoreError(
                f"the collection {self.collection!r} does not keep tenants apart; leave out "
                f"tenant={self.tenant!r}, or ingest into a new collection with it."
            )
        self._tenant_checked = True

    def searching_one(self, query: ArrayLike, ask: SearchRequest) -> RequestPlan[list[Hit]]:
        """Search for one query, (d,); see `QdrantStore.search`."""
        vector = np.asarray(query)
        if vector.ndim != 1:
            raise InputError(f"the query vector has shape {vector.shape}; one of shape (d,) is needed.")
        return (yield from self.searching(vector[None], ask))[0]

    def searching(self, queries: ArrayLike, ask: SearchRequest) -> RequestPlan[list[list[Hit]]]:
        """Search for each query, (n, d), in turn; see `QdrantStore.search`."""
        space = yield from self.opening()
        vectors = _check_queries(queries, space.width)
        if callable(ask.rerank) and len(vectors) != 1:
            raise InputError("a function that re-ranks is for one query; search with each on its own.")
        if ask.rerank is not None and not self._has_frames:
            raise StoreError(f"the collection {self.collection!r} has no frame vectors to re-rank with.")
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), BATCH):
            batch = vectors[start : start + BATCH]
            points = yield from self._following(partial(self._points, batch, ask))
            frames: dict[models.ExtendedPointId, Any] = {}
            if ask.locate:
                frames = yield from self._frames(point for row in points for point in row)
            found += [
                [self._hit(point, frames.get(point.id), query) for point in row]
                for query, row in zip(batch, points, strict=True)
            ]
        return found

    def _following(self, make: Callable[[], RequestPlan[T]]) -> RequestPlan[T]:
        """Make requests, again where the collection that the alias meant is gone and it means another one."""
        try:
            return (yield from make())
        except (UnexpectedResponse, grpc.RpcError) as error:
            if self.target == self.collection or not _not_found(error):
                raise
            self.opened = None
            yield from self.opening()
            return (yield from make())

    def _points(self, queries: Floats, ask: SearchRequest) -> RequestPlan[list[list[models.ScoredPoint]]]:
        if ask.rerank is not None:
            return (yield from self._reranked(queries, ask, ask.rerank))
        if self.video_field is None:
            requests = [self._request(query, ask, ask.limit, ask.offset) for query in queries]
            return [answer.points for answer in (yield "query_batch_points", self._batch(requests))]
        if len(queries) == 1:
            return [(yield from self._grouped(queries[0], ask))]
        # A batch cannot be grouped by the server. Most queries have enough videos among a few times as many
        # segments; the others are asked again.
        reach = 2 * (ask.offset + ask.limit) * ask.per_video + 10
        answers = yield "query_batch_points", self._batch([self._request(q, ask, reach, 0) for q in queries])
        rows = []
        for query, answer in zip(queries, answers, strict=True):
            row = self._first_videos(answer.points, ask, seen_all=len(answer.points) < reach)
            rows.append((yield from self._grouped(query, ask)) if row is None else row)
        return rows

    def _batch(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "collection_name": self.target,
            "requests": [
                models.QueryRequest(
                    filter=request.pop("query_filter"), params=request.pop("search_params"), **request
                )
                for request in requests
            ],
        }

    def _request(self, query: Floats, ask: SearchRequest, limit: int, offset: int) -> dict[str, Any]:
        """Describe a query by its nearest segments."""
        return {
            "query": query.tolist(),
            "using": self.vector or None,
            "limit": limit,
            "offset": offset,
            "query_filter": self.scoped(ask.query_filter),
            "score_threshold": ask.min_score,
            "search_params": self._search_params(ask.exact),
            "with_payload": True,
        }

    def _grouped(self, query: Floats, ask: SearchRequest) -> RequestPlan[list[models.ScoredPoint]]:
        """Find the best videos.

        To find groups a server looks at a few times as many points as it is to return, and returns fewer groups
        where some of them have more points than that near the query: it is asked again, without those groups.
        """
        assert self.video_field is not None
        wanted = ask.offset + ask.limit
        request = self._request(query, ask, wanted, 0)
        del request["offset"]  # groups have none
        grouping = {"group_by": self.video_field, "group_size": ask.per_video}
        within = [] if request["query_filter"] is None else [request["query_filter"]]
        groups: dict[str | int, models.PointGroup] = {}
        while len(groups) < wanted:
            answer = yield "query_points_groups", {"collection_name": self.target, **grouping, **request}
            # a video of a list of names comes back by another of them
            fresh = {group.id: group for group in answer.groups if group.id not in groups}
            if not fresh:
                break
            groups |= fresh
            others = matching(self.video_field, groups, but=True)
            request |= {
                "limit": wanted - len(groups),
                "query_filter": models.Filter(must=[*others, *within]),
            }
        # an approximate index may find late what is nearer
        best = sorted(groups.values(), key=lambda group: group.hits[0].score, reverse=self._descending)
        return [point for group in best[ask.offset :] for point in group.hits]

    def _reranked(
        self, queries: Floats, ask: SearchRequest, rerank: Literal["maxsim"] | Reranker
    ) -> RequestPlan[list[list[models.ScoredPoint]]]:
        rows = yield from self._candidates(queries, ask)
        if callable(rerank):
            ranked = [(yield from self._scored(rows[0], rerank))]
        else:
            ranked = yield from self._maxsim(queries, rows)
        found = []
        for row, scores in zip(rows, ranked, strict=True):
            points = {point.id: point for point in row}
            scored = [points[id_].model_copy(update={"score": score}) for id_, score in scores.items()]
            found.append(self._first_videos(scored, ask, seen_all=True) or [])
        return found

    def _candidates(self, queries: Floats, ask: SearchRequest) -> RequestPlan[list[list[models.ScoredPoint]]]:
        """Find what is re-ranked, spread over videos: a long one has hundreds of segments near a query.

        Those are `per_video` segments of as many videos as there may be candidates for, or more of each where
        there are fewer videos.
        """
        ask = replace(ask, rerank=None, offset=0, limit=ask.candidates // ask.per_video)
        rows = yield from self._points(queries, ask)
        if self.video_field is not None:
            for n, row in enumerate(rows):
                videos = len({v for point in row for v in group_values(point.payload, self.video_field)})
                share = ask.candidates // max(1, videos)
                if videos and share > ask.per_video:
                    more = replace(ask, limit=videos, per_video=share)
                    rows[n] = yield from self._grouped(queries[n], more)
        return rows

    def _maxsim(
        self, queries: Floats, rows: Sequence[Sequence[models.ScoredPoint]]
    ) -> RequestPlan[list[dict[models.ExtendedPointId, float]]]:
        """Score segments by their frame that is nearest to the query, in the server; best first."""
        requests = [
            models.QueryRequest(
                query=[query.tolist()],
                using=FRAMES,
                filter=models.Filter(must=[models.HasIdCondition(has_id=[point.id for point in row])]),
                limit=max(1, len(row)),
                with_payload=False,
            )
            for query, row in zip(queries, rows, strict=True)
        ]
        answers = yield "query_batch_points", {"collection_name": self.target, "requests": requests}
        return [{point.id: point.score for point in answer.points} for answer in answers]

    def _scored(
        self, points: Sequence[models.ScoredPoint], score: Reranker
    ) -> RequestPlan[dict[models.ExtendedPointId, float]]:
        """Score segments by a function of their frame vectors; best first."""
        frames = yield from self._frames(points)
        if not frames:
            return {}
        scores = np.asarray(score([np.asarray(vectors, np.float32) for vectors in frames.values()]))
        if scores.shape != (len(frames),):
            raise InputError(f"rerank returned scores of shape {scores.shape}; expected ({len(frames)},).")
        ids = list(frames)
        return {ids[n]: float(scores[n]) for n in np.argsort(-scores, kind="stable")}

    def _first_videos(
        self, points: Sequence[models.ScoredPoint], ask: SearchRequest, *, seen_all: bool
    ) -> list[models.ScoredPoint] | None:
        """Group points, best first, by video; None if points that were not seen could change the answer."""
        videos: dict[Any, list[models.ScoredPoint]] = {}
        for point in points:
            for key in [point.id] if self.video_field is None else group_values(point.payload, self.video_field):
                videos.setdefault(key, []).append(point)
        chosen = list(videos.values())[ask.offset : ask.offset + ask.limit]
        full = len(chosen) == ask.limit and all(len(hits) >= ask.per_video for hits in chosen)
        if not (full or seen_all):
            return None
        return [point for hits in chosen for point in hits[: ask.per_video]]

    def _search_params(self, exact: bool) -> models.SearchParams | None:
        if not self.takes_params:
            return None
        if exact:
            return models.SearchParams(exact=True)
        return RESCORED if self._quantized else None

    def _frames(self, points: Iterable[models.ScoredPoint]) -> RequestPlan[dict[models.ExtendedPointId, Any]]:
        """Fetch the frame vectors of hits only: asked for by the search, memory copies everybody's."""
        ids = list(dict.fromkeys(point.id for point in points))
        if not self._has_frames or not ids:
            return {}
        found: dict[models.ExtendedPointId, Any] = {}
        for start in range(0, len(ids), BATCH):
            chosen = {"ids": ids[start : start + BATCH], "with_payload": False, "with_vectors": [FRAMES]}
            records = yield "retrieve", {"collection_name": self.target, **chosen}
            found |= {r.id: r.vector[FRAMES] for r in records if isinstance(r.vector, dict) and FRAMES in r.vector}
        return found

    def _hit(self, point: models.ScoredPoint, frames: Any, query: Floats) -> Hit:
        payload = point.payload or {}
        times = payload.get("timestamps")
        timestamp = None
        if frames is not None and times is not None and len(times) == len(frames):
            timestamp = float(times[int(np.argmax(np.asarray(frames) @ query))])
        return Hit(
            id=point.id,
            video_id=str(next(iter(group_values(payload, self.video_field or "")), point.id)),
            path=payload.get("path"),
            start=payload.get("start"),
            end=payload.get("end"),
            score=point.score,
            timestamp=timestamp,
            payload=payload,
        )

    def requesting(self, method: str, arguments: dict[str, Any]) -> RequestPlan[Any]:
        """Read from the collection by a method of the client; see `QdrantStore.request`."""

        def make() -> RequestPlan[Any]:
            return (yield method, {"collection_name": self.target, **arguments})

        yield from self.opening()
        return (yield from self._following(make))

    def counting(self) -> RequestPlan[int]:
        """Count the segments; see `QdrantStore.count`."""
        return (yield from self._counting(models.HasVectorCondition(has_vector=self.vector)))

    def counting_videos(self) -> RequestPlan[int]:
        """Count the videos; see `QdrantStore.count_videos`."""
        yield from self.opening()
        if not self._has_metadata:
            return (yield from self.counting())
        return (yield from self._counting(models.FieldCondition(key="segments", range=models.Range(gte=1))))

    def _counting(self, condition: models.Condition) -> RequestPlan[int]:
        chosen = self.scoped(models.Filter(must=[condition]))
        answer = yield from self.requesting("count", {"count_filter": chosen, "exact": True})
        return int(answer.count)


def group_values(payload: Mapping[str, Any] | None, key: str) -> list[str | int]:
    """Return the groups that a payload belongs to; `key` may lead into it, with dots. Qdrant groups like this."""
    value: Any = payload
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    values = value if isinstance(value, list) else [value]
    return [one for one in dict.fromkeys(values) if isinstance(one, str | int) and not isinstance(one, bool)]


def matching(key: str, values: Iterable[str | int], *, but: bool = False) -> list[models.Condition]:
    """Match a field with values, or with any `but` these; a condition takes those of one type."""
    conditions: list[models.Condition] = []
    values = list(values)
    for kind in (str, int):
        some: list[Any] = [value for value in values if isinstance(value, kind)]
        if some:
            match = models.MatchExcept(**{"except": some}) if but else models.MatchAny(any=some)
            conditions.append(models.FieldCondition(key=key, match=match))
    return conditions


def foreign_collection(collection: str) -> str:
    """Say that a collection was made by something else."""
    return (
        f"the collection {collection!r} does not say which embedding space its vectors live in: something other "
        "than dits_adapter made it. If you know that its videos were embedded with the CLIP of your query "
        "encoder, say so: QdrantStore(…, space=encoder.space, vector=NAME, trust_foreign=True), or on the "
        "command line --vector NAME --trust-foreign."
    )


def _not_found(error: UnexpectedResponse | grpc.RpcError) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    return bool(error.code() == grpc.StatusCode.NOT_FOUND)


def _check_queries(vectors: ArrayLike, width: int) -> NDArray[np.float32]:
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2:
        raise InputError(f"the query vectors have shape {queries.shape}; (n, {width}) is needed.")
    if queries.shape[1] != width:
        raise InputError(f"the query has {queries.shape[1]} dimensions; the collection's vectors have {width}.")
    wrong = np.flatnonzero(~(np.isfinite(queries).all(axis=1) & queries.any(axis=1)))
    if len(wrong):
        raise InputError(f"query vector {wrong[0]} is zero, or holds NaN or infinite values.")
    return queries
