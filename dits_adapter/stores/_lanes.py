"""Lanes of a search fused by rank: what is seen in the videos, and what is said in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import counted
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores._terms import terms_of
from dits_adapter.stores.metadata import PointLayout
from dits_adapter.stores.ranking import best_timestamp, group_by_video, nearest_search, video_filter
from dits_adapter.stores.requests import SEEN, Hit, LaneRank, ReadRequest, SearchRequest
from dits_adapter.stores.rows import StoredSegment
from dits_adapter.stores.text_lane import SAID, TextIndex, TextLane

__all__ = [
    "RANKS",
    "fuse",
    "index_texts",
    "lane_request",
    "lane_texts",
    "locate",
    "require_texts",
    "search_index",
]

RANKS = 5
"""Constant k of reciprocal rank fusion: small, so that the best of either lane come first (docs/lanes.md)."""

_READ = 256
"""Segments that are read at a time."""


def lane_texts(request: SearchRequest, queries: int) -> Sequence[str]:
    """Return the texts of a request with the lane "said", one a query.

    Raises:
        InputError: no texts, another number of them, or one without a word.
    """
    texts = request.texts
    if texts is None or isinstance(texts, str) or len(texts) != queries:
        given = "none" if texts is None else "a string" if isinstance(texts, str) else len(texts)
        raise InputError(
            f'the lane "said" looks for texts: give one for each of {counted(queries, "query", "queries")} '
            f"(texts=[…]), not {given}."
        )
    for number, text in enumerate(texts):
        if not terms_of(text, None):
            raise InputError(
                f"the text {text[:60]!r} of query {number} has no word that could be looked for in what is said; "
                "search what is seen alone."
            )
    return texts


def lane_request(request: SearchRequest) -> SearchRequest:
    """Return the request that each lane answers for itself: as many of its best videos as fusion looks at."""
    videos = max(request.candidates, request.offset + request.limit)
    return replace(request, limit=videos, offset=0, locate=False, lanes=(SEEN,), texts=None)


def fuse(lanes: Mapping[str, Sequence[Hit]], half: float, request: SearchRequest) -> list[Hit]:
    """Fuse the hits of lanes by the ranks of their videos: weighted reciprocal rank fusion.

    A video's score is the sum of weight / (5 + rank) over the lanes that found it, the first rank being 1. What is
    seen has the weight 1. What is said has the video's BM25 as a share of `half`: by rank alone, the best of all
    texts that have a common word or two of a query would count as much as the best of what is seen. Segments of a
    video come from all lanes, best first by the same sum, in which the n-th that a lane has of it counts as n - 1
    ranks behind the first.

    Args:
        lanes: hits of each lane, best video first and its best segment first.
        half: BM25 at which what is said has the weight 1 (`TextLane.half`).
        request: request with `limit`, `offset` and `per_video`.

    Returns:
        Hits of the page with the video's score and its ranks; those of one video stand together. At equal scores
        those of the first lane come first.
    """
    ranks: dict[str, dict[str, LaneRank]] = {}
    hits: dict[str | int, Hit] = {}
    scores: dict[str | int, float] = {}
    totals: dict[str, float] = {}
    for lane, found in lanes.items():
        seen_of: dict[str, int] = {}
        for hit in found:
            weight = hit.score / half if lane == SAID else 1.0
            before = seen_of.get(hit.video_id, 0)
            seen_of[hit.video_id] = before + 1
            if not before:
                ranks.setdefault(hit.video_id, {})[lane] = LaneRank(rank=len(seen_of), score=hit.score)
                totals[hit.video_id] = totals.get(hit.video_id, 0.0) + weight / (RANKS + len(seen_of))
            rank = ranks[hit.video_id][lane].rank
            hits.setdefault(hit.id, hit)
            scores[hit.id] = scores.get(hit.id, 0.0) + weight / (RANKS + rank + before)
    order = sorted(hits.values(), key=lambda hit: (-totals[hit.video_id], -scores[hit.id]))
    videos = group_by_video(order, lambda hit: (hit.video_id,), request)
    page = [hit for segments in videos for hit in segments]
    return [replace(hit, score=totals[hit.video_id], bias=0.0, lanes=ranks[hit.video_id]) for hit in page]


def locate(hit: Hit, segment: StoredSegment | None, query: NDArray[np.floating]) -> Hit:
    """Return a hit with the second of its frame nearest to the query; None where the segment has no frames."""
    frames = None if segment is None else segment.frame_vectors
    return replace(hit, timestamp=best_timestamp(frames, hit.payload.get("timestamps"), query))


def require_texts(texts: TextLane | None, collection: str) -> TextLane:
    """Return the record of a collection's texts.

    Raises:
        StoreError: it has none.
    """
    if texts is None:
        raise StoreError(
            f"the collection {collection!r} has no texts to search in what is said. Put them beside its segments "
            "(dits-adapter texts PAIRS.jsonl), or search what is seen alone."
        )
    return texts


def index_texts(segments: Iterable[StoredSegment], lane: TextLane, layout: PointLayout) -> TextIndex:
    """Return an index of the texts beside segments, by their payloads."""
    said = ((s.id, layout.video_of(s.payload), s.payload.get(SAID)) for s in segments)
    return TextIndex(lane, ((id_, id_ if video is None else video, text) for id_, video, text in said if text))


def search_index(
    index: TextIndex,
    text: str,
    request: SearchRequest,
    read: Callable[[ReadRequest], Iterable[StoredSegment]],
    layout: PointLayout,
) -> list[Hit]:
    """Search an index of texts; segments that are gone by now are left out.

    Args:
        index: index of the texts.
        text: the query.
        request: request whose filter is a `VideoFilter` or None.
        read: function that reads segments by their ids.
        layout: names of the payload fields.

    Raises:
        InputError: a filter of some database.
    """
    condition = video_filter(request)
    scores, places = index.rank(text)

    def admitted(chosen: Sequence[int]) -> Iterator[tuple[float, StoredSegment]]:
        for start in range(0, len(chosen), _READ):
            part = {index.ids[places[n]]: float(scores[n]) for n in chosen[start : start + _READ]}
            stored = {segment.id: segment for segment in read(ReadRequest(ids=list(part)))}
            for id_, score in part.items():
                if id_ in stored and (condition is None or condition.admits(stored[id_].payload)):
                    yield score, stored[id_]

    ranked, looked = admitted(range(len(places))), list[tuple[float, StoredSegment]]()

    def nearest(number: int, videos: Sequence[str | int] | None) -> tuple[list[tuple[float, StoredSegment]], bool]:
        if videos is not None:
            of = set(videos)
            return list(admitted([n for n, place in enumerate(places) if index.videos[place] in of])), True
        looked.extend(islice(ranked, max(0, number - len(looked))))
        return list(looked), len(looked) < number

    plain = replace(request, locate=False, min_score=None, bias=None)
    return nearest_search(np.empty(0), plain, nearest, lambda segments: segments, layout=layout)
