"""Exact ranking of segments and frames in memory, shared by stores.

`exact_search` is the whole search of a database that has none of its own, `nearest_search` that of one which finds
segments and does not group them; a database that groups uses the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.metadata import PointLayout, payload_value
from dits_adapter.stores.requests import Hit, Reranker, SearchRequest, VideoFilter
from dits_adapter.stores.rows import StoredSegment

__all__ = [
    "CANDIDATES",
    "OURS",
    "Nearest",
    "best_timestamp",
    "bias_weight",
    "candidate_request",
    "exact_search",
    "first_look",
    "frame_scores",
    "group_by_video",
    "nearest_search",
    "video_filter",
    "wider_candidate_request",
]

T = TypeVar("T")

CANDIDATES = 500
"""Segments of the best cosines that a score bias orders at a time (docs/bank.md has what that misses)."""

Nearest = Callable[[int, Sequence[str | int] | None], tuple[Sequence[tuple[float, StoredSegment]], bool]]
"""Function from a number n and videos, None for all, to the n nearest segments or more, with their cosines, best
first, and whether there are no more."""

OURS = PointLayout(video="video_id")
"""Layout of segments as `SegmentRow.payload` names their fields."""


def exact_search(
    query: NDArray[np.float32],
    segments: Iterable[StoredSegment],
    request: SearchRequest,
    bias: ScoreBias | None = None,
) -> list[Hit]:
    """Search by comparing the query with every segment.

    Args:
        query: (d,), of any norm.
        segments: all segments of the collection, with their vectors of unit norm; frame vectors are needed to
            re-rank and to locate.
        request: request whose filter is a `VideoFilter` or None.
        bias: record of the collection's score bias; None without one.

    Returns:
        Best video first, and its best segment first.

    Raises:
        InputError: a filter of some database, or a `rerank` function that returns another shape than (m,).
        StoreError: no frame vectors to re-rank with, or a weight for a bias that is not there.
    """
    condition = video_filter(request)
    unit = query / np.linalg.norm(query)
    scored = [
        (float(segment.vector @ unit), segment)
        for segment in segments
        if segment.vector is not None and (condition is None or condition.admits(segment.payload))
    ]
    scored = sorted((item for item in scored if not math.isnan(item[0])), key=_score, reverse=True)

    def nearest(number: int, videos: Sequence[str | int] | None) -> tuple[list[tuple[float, StoredSegment]], bool]:
        if videos is not None:
            chosen = set(videos)
            return [item for item in scored if payload_value(item[1].payload, "video_id") in chosen], True
        if bias is not None:  # which may bring up any segment
            return scored, True
        return scored[:number], number >= len(scored)

    return nearest_search(unit, request, nearest, lambda chosen: chosen, bias=bias)


def nearest_search(
    query: NDArray[np.floating],
    request: SearchRequest,
    nearest: Nearest,
    framed: Callable[[Sequence[StoredSegment]], Sequence[StoredSegment]],
    *,
    bias: ScoreBias | None = None,
    layout: PointLayout = OURS,
) -> list[Hit]:
    """Search a database that finds the nearest segments, and does not group them by video.

    Args:
        query: (d,), of unit norm.
        request: request; its filter is `nearest`'s business.
        nearest: the database.
        framed: function from segments to the same with their frame vectors.
        bias: record of the collection's score bias; None without one.
        layout: names of the payload fields.

    Returns:
        As `exact_search`; with a bias the `CANDIDATES` segments of the best cosines are ordered by it, and come
        before those beyond them.

    Raises:
        InputError: a `rerank` function that returns another shape than (m,).
        StoreError: no frame vectors to re-rank with, or a weight for a bias that is not there.
    """
    grouping = _Grouping(nearest, layout, bias, bias_weight(request, bias))
    if request.rerank is None:
        videos = grouping.videos(request)
    else:
        first = candidate_request(request)
        videos = grouping.videos(first)
        if (wider := wider_candidate_request(request, len(videos))) is not None:
            videos = grouping.videos(wider)
        candidates = framed([hit.segment for video in videos for hit in video])
        videos = group_by_video(_reranked(candidates, query, request.rerank), grouping.videos_of, request)
    hits = [hit for video in videos for hit in video]
    segments = [hit.segment for hit in hits]
    if request.locate and request.rerank is None:
        segments = list(framed(segments))
    return [
        Hit.of(
            hit.segment.id,
            hit.segment.payload,
            hit.score,
            video_id=grouping.videos_of(hit)[0],
            timestamp=_moment(segment, query) if request.locate else None,
            bias=hit.bias,
            layout=layout,
        )
        for hit, segment in zip(hits, segments, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Scored:
    """Segment with its score, from which `bias` has been taken."""

    score: float
    segment: StoredSegment
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class _Grouping:
    """Search for the best videos by their nearest segments, looking at more and more of these."""

    nearest: Nearest
    layout: PointLayout
    bias: ScoreBias | None
    weight: float

    def videos_of(self, hit: _Scored) -> tuple[str | int]:
        video = self.layout.video_of(hit.segment.payload)
        return (hit.segment.id if video is None else video,)

    def videos(self, request: SearchRequest) -> list[list[_Scored]]:
        """Find the videos of the request's page, each with its best segments."""
        number = _first_look(request, self.weight)
        ranked: dict[str | int, _Scored] = {}
        while True:
            complete = self._look(ranked, number, request)
            videos = group_by_video(ranked.values(), self.videos_of, request)
            if complete:
                return videos
            if len(videos) == request.limit:
                break
            number *= 2
        short = [
            video
            for video in videos
            if len(video) < request.per_video and self.layout.video_of(video[0].segment.payload) is not None
        ]
        if not short:
            return videos
        fuller = self._segments_of([self.videos_of(video[0])[0] for video in short], request)
        return [fuller.get(self.videos_of(video[0])[0], video) for video in videos]

    def _segments_of(self, videos: list[str | int], request: SearchRequest) -> dict[str | int, list[_Scored]]:
        """Find the best segments of these videos."""
        number = 2 * len(videos) * request.per_video
        page = replace(request, offset=0, limit=len(videos))
        while True:
            ranked: dict[str | int, _Scored] = {}
            complete = self._look(ranked, number, request, videos)
            found = group_by_video(sorted(ranked.values(), key=_by_score), self.videos_of, page)
            if complete or (len(found) == len(videos) and all(len(of) == request.per_video for of in found)):
                return {self.videos_of(of[0])[0]: of for of in found}
            number *= 2

    def _look(
        self,
        ranked: dict[str | int, _Scored],
        number: int,
        request: SearchRequest,
        videos: Sequence[str | int] | None = None,
    ) -> bool:
        """Append the nearest segments that are not ranked yet; return whether there are no more."""
        scored, complete = self.nearest(number, videos)
        scored = [item for item in scored if not math.isnan(item[0])]  # a vector of zeros has no cosine
        if request.min_score is not None:
            above = [item for item in scored if item[0] >= request.min_score]
            complete, scored = complete or len(above) < len(scored), above
        fresh = [(score, segment, self._taken(segment)) for score, segment in scored if segment.id not in ranked]
        hits = [_Scored(score - taken, segment, taken) for score, segment, taken in fresh]
        ranked.update((hit.segment.id, hit) for hit in sorted(hits, key=_by_score))
        return complete

    def _taken(self, segment: StoredSegment) -> float:
        return self.weight * self.bias.of(segment.payload) if self.weight and self.bias else 0.0


def first_look(request: SearchRequest, bias: ScoreBias | None) -> int:
    """Return for how many segments `nearest_search` asks first, for stores that answer several queries at once.

    Raises:
        StoreError: a weight for a bias that is not there.
    """
    weight = bias_weight(request, bias)
    return _first_look(request if request.rerank is None else candidate_request(request), weight)


def _first_look(request: SearchRequest, weight: float) -> int:
    return CANDIDATES if weight else 2 * (request.offset + request.limit) + 10


def video_filter(request: SearchRequest) -> VideoFilter | None:
    """Return the filter of a request to a store that has none of its own.

    Raises:
        InputError: a filter of some database.
    """
    if request.filter is None or isinstance(request.filter, VideoFilter):
        return request.filter
    raise InputError(f"filter is a {type(request.filter).__name__}; this store takes a VideoFilter.")


def bias_weight(request: SearchRequest, bias: ScoreBias | None) -> float:
    """Return the weight of the score bias in a search; 0 without one.

    Raises:
        StoreError: the request wants a bias that the collection has not, or not yet for all segments.
    """
    if bias is not None and bias.mean is not None:
        return bias.weight if request.bias is None else request.bias
    if request.bias:
        raise StoreError(
            "the collection has no score bias, or one that was interrupted while it was computed; apply it with "
            "dits-adapter bias BANK, or leave the weight out."
        )
    return 0.0


def _score(item: tuple[float, StoredSegment]) -> float:
    return item[0]


def _by_score(hit: _Scored) -> float:
    return -hit.score


def _reranked(
    candidates: Sequence[StoredSegment], query: NDArray[np.floating], rerank: Literal["maxsim"] | Reranker
) -> list[_Scored]:
    with_frames = [(segment, segment.frame_vectors) for segment in candidates]
    kept = [(segment, frames) for segment, frames in with_frames if frames is not None and len(frames)]
    if candidates and not kept:
        raise StoreError("the segments have no frame vectors to re-rank with.")
    scores = frame_scores(rerank, query, [frames for _, frames in kept])
    ranked = [_Scored(score, segment) for score, (segment, _) in zip(scores.tolist(), kept, strict=True)]
    return sorted(ranked, key=_by_score)


def _moment(segment: StoredSegment, query: NDArray[np.floating]) -> float | None:
    return best_timestamp(segment.frame_vectors, segment.payload.get("timestamps"), query)


def group_by_video(
    ranked: Iterable[T], videos_of: Callable[[T], Iterable[Hashable]], request: SearchRequest
) -> list[list[T]]:
    """Group segments, best first, by video, and keep those of the request's page.

    Args:
        ranked: segments, best first.
        videos_of: the videos that a segment belongs to, usually one.
        request: `limit`, `offset` and `per_video`.

    Returns:
        The best videos, each with its best segments.
    """
    videos: dict[Hashable, list[T]] = {}
    for segment in ranked:
        for video in videos_of(segment):
            videos.setdefault(video, []).append(segment)
    page = list(videos.values())[request.offset : request.offset + request.limit]
    return [segments[: request.per_video] for segments in page]


def candidate_request(request: SearchRequest) -> SearchRequest:
    """Return the request that finds the segments to re-rank: `per_video` of as many videos as that makes."""
    return replace(request, rerank=None, offset=0, limit=request.candidates // request.per_video)


def wider_candidate_request(request: SearchRequest, videos: int) -> SearchRequest | None:
    """Return the request for more segments of each video, where there are so few videos that it may have them."""
    share = request.candidates // max(1, videos)
    if not videos or share <= request.per_video:
        return None
    return replace(request, rerank=None, offset=0, limit=videos, per_video=share)


def frame_scores(
    rerank: Literal["maxsim"] | Reranker, query: NDArray[np.floating], frames: Sequence[NDArray[np.floating]]
) -> NDArray[np.floating]:
    """Score segments by their frames, m arrays (frames, d).

    Returns:
        Scores, (m,): by MaxSim the cosine of `query` (d,) and the nearest frame.

    Raises:
        InputError: the function returns another shape.
    """
    if not frames:
        return np.empty(0)
    if rerank == "maxsim":
        unit = query / np.linalg.norm(query)
        return np.array([(vectors @ unit).max() for vectors in frames])
    scores = np.asarray(rerank(frames))
    if scores.shape != (len(frames),):
        raise InputError(f"rerank returned scores of shape {scores.shape}; expected ({len(frames)},).")
    return scores


def best_timestamp(frames: Any, timestamps: Sequence[float] | None, query: NDArray[np.floating]) -> float | None:
    """Return the time of the frame nearest to the query, in seconds; None without frames or their times.

    Args:
        frames: (n, d), or None.
        timestamps: n times, in seconds.
        query: (d,).
    """
    if frames is None or not timestamps or len(timestamps) != len(frames):
        return None
    return float(timestamps[int(np.argmax(np.asarray(frames) @ query))])
