"""Exact ranking of segments and frames in memory, shared by stores.

`exact_search` is the whole search of a database that has none of its own; a database with an index uses the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.requests import Hit, Reranker, SearchRequest, VideoFilter
from dits_adapter.stores.rows import StoredSegment

__all__ = [
    "best_timestamp",
    "bias_weight",
    "candidate_request",
    "exact_search",
    "frame_scores",
    "group_by_video",
    "wider_candidate_request",
]

T = TypeVar("T")


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
    condition = request.filter
    weight = bias_weight(request, bias)
    if condition is not None and not isinstance(condition, VideoFilter):
        raise InputError(f"filter is a {type(condition).__name__}; this store takes a VideoFilter.")
    unit = query / np.linalg.norm(query)
    scored = [
        (float(segment.vector @ unit), segment)
        for segment in segments
        if segment.vector is not None and (condition is None or condition.admits(segment.payload))
    ]
    if request.min_score is not None:
        scored = [item for item in scored if item[0] >= request.min_score]
    taken = {s.id: weight * bias.of(s.payload) for _, s in scored} if weight and bias else {}
    ranked = sorted(((score - taken.get(s.id, 0.0), s) for score, s in scored), key=_score, reverse=True)
    if request.rerank is not None:
        ranked = _reranked(ranked, unit, request, request.rerank)
    return [
        Hit.of(
            segment.id,
            segment.payload,
            score,
            video_id=segment.payload.get("video_id"),
            timestamp=_moment(segment, unit) if request.locate else None,
            bias=0.0 if request.rerank else taken.get(segment.id, 0.0),
        )
        for video in group_by_video(ranked, _videos, request)
        for score, segment in video
    ]


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


_Scored = tuple[float, StoredSegment]


def _score(item: _Scored) -> float:
    return item[0]


def _videos(item: _Scored) -> tuple[Hashable]:
    return (item[1].payload.get("video_id", item[1].id),)


def _reranked(
    ranked: Sequence[_Scored],
    query: NDArray[np.floating],
    request: SearchRequest,
    rerank: Literal["maxsim"] | Reranker,
) -> list[_Scored]:
    first = candidate_request(request)
    videos = group_by_video(ranked, _videos, first)
    if (wider := wider_candidate_request(request, len(videos))) is not None:
        videos = group_by_video(ranked, _videos, wider)
    candidates = [(segment, segment.frame_vectors) for video in videos for _, segment in video]
    framed = [(segment, frames) for segment, frames in candidates if frames is not None and len(frames)]
    if candidates and not framed:
        raise StoreError("the segments have no frame vectors to re-rank with.")
    segments = [segment for segment, _ in framed]
    scores = frame_scores(rerank, query, [frames for _, frames in framed])
    return sorted(zip(scores.tolist(), segments, strict=True), key=_score, reverse=True)


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
    if frames is None or timestamps is None or len(timestamps) != len(frames):
        return None
    return float(timestamps[int(np.argmax(np.asarray(frames) @ query))])
