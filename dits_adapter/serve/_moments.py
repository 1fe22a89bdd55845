"""Searches by a stored moment or a picture, and the moments of one video."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError
from dits_adapter.serve._answers import Moment, Ranking, Timeline
from dits_adapter.serve._searcher import Searcher, search_result
from dits_adapter.stores.bias import BIAS
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest
from dits_adapter.stores.rows import StoredSegment

__all__ = ["Weighted", "search_image", "search_like", "segment_query", "timeline"]

_MOST_SEGMENTS = 5_000
"""Segments of one video that are compared with a query."""

_FRAMED = 20
"""Segments up to which a video's moments are its frames."""

Weighted = tuple[NDArray[np.float32], float]
"""Unit vector (d,) of a query, and the weight of the score bias for it."""


def search_like(searcher: Searcher, segment: str, request: SearchRequest) -> Ranking:
    """Search what is like a stored segment.

    Raises:
        InputError: no such segment.
        StoreError: the collection cannot be searched.
    """
    started = time.monotonic()
    stored, hits = _read(searcher, segment), searcher.store.search_like(segment, request)
    of = None if stored is None else search_result(Hit.of(stored.id, stored.payload, 1.0, video_id=_video(stored)))
    return Ranking(of=of, results=[search_result(hit) for hit in hits], seconds=time.monotonic() - started)


def search_image(searcher: Searcher, content: bytes, request: SearchRequest) -> Ranking:
    """Search what is like a picture, by the bytes of its file.

    Raises:
        InputError: a picture that cannot be read, or an encoder without an image side.
        StoreError: the collection cannot be searched.
    """
    started = time.monotonic()
    hits = searcher.store.search(searcher.encoder.encode_image(content), replace(request, bias=0.0))
    return Ranking(of=None, results=[search_result(hit) for hit in hits], seconds=time.monotonic() - started)


def timeline(searcher: Searcher, video_id: str, queries: Mapping[str, Weighted]) -> Timeline:
    """Compare all segments of a video with queries.

    Where they are few and the store has frame vectors, with each frame instead, which stands for its share of the
    segment. A frame's score is its part in the segment's: their mean is the score of the segment.

    Args:
        searcher: the collection.
        video_id: the video.
        queries: queries by the names that their scores get.

    Raises:
        InputError: no such video.
        StoreError: the collection cannot be read.
    """
    chosen = ReadRequest(field="video_id", values=[video_id], limit=_MOST_SEGMENTS + 1, vectors=True)
    read = [segment for segment in searcher.store.read(chosen) if segment.vector is not None]
    segments = [segment for segment in read if {"start", "end"} <= segment.payload.keys()]
    complete = len(segments) <= _MOST_SEGMENTS
    if segments and len(segments) <= _FRAMED and searcher.store.capabilities.frames:
        segments = list(searcher.store.read(ReadRequest(ids=[s.id for s in segments], vectors=True, frames=True)))
    if not segments:  # or no longer, where the video is deleted meanwhile
        raise InputError(f"the collection has no video {video_id[:60]!r} with times.")
    moments = [moment for segment in segments for moment in _moments(segment, queries)]
    return Timeline(
        video_id=video_id,
        duration=segments[0].payload.get("duration"),
        moments=sorted(moments, key=lambda moment: moment.start),
        complete=complete,
    )


def _moments(segment: StoredSegment, queries: Mapping[str, Weighted]) -> Iterator[Moment]:
    vectors, bias = segment.frame_vectors, float(segment.payload.get(BIAS) or 0.0)
    if vectors is None or not len(vectors):
        assert segment.vector is not None
        vectors = segment.vector[None]
    else:
        vectors = vectors / np.linalg.norm(vectors.mean(axis=0))
    bounds = np.linspace(segment.payload["start"], segment.payload["end"], len(vectors) + 1)
    scores = {name: vectors @ query - weight * bias for name, (query, weight) in queries.items()}
    for n, (start, end) in enumerate(pairwise(bounds)):
        yield Moment(start=start, end=end, scores={name: float(of_all[n]) for name, of_all in scores.items()})


def segment_query(searcher: Searcher, segment: str) -> Weighted:
    """Return the vector of a stored segment as a query.

    Raises:
        InputError: no such segment.
        StoreError: the collection cannot be read.
    """
    stored = _read(searcher, segment, vectors=True)
    if stored is None or stored.vector is None:
        raise InputError(f"the collection has no segment {segment[:60]!r}.")
    return stored.vector, 0.0


def _read(searcher: Searcher, segment: str, *, vectors: bool = False) -> StoredSegment | None:
    """Read a segment by its id, written as text."""
    chosen = ReadRequest(field="", values=[segment], limit=1, vectors=vectors)
    return next(iter(searcher.store.read(chosen)), None)


def _video(segment: StoredSegment) -> str | None:
    video = segment.payload.get("video_id")
    return None if video is None else str(video)
