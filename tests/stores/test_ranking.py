"""The search that compares with every segment, against a reference that sorts all of them."""

from __future__ import annotations

import numpy as np

from dits_adapter import SearchRequest, exact_search
from dits_adapter.stores.rows import StoredSegment


def test_pages_of_videos_and_their_segments_are_those_of_all_segments_in_order():
    rng = np.random.default_rng(0)
    for trial in range(100):
        number, limit, offset, per_video = (int(rng.integers(1, most)) for most in (150, 12, 5, 5))
        vectors = rng.normal(size=(number, 4))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        if trial % 3 == 0:
            vectors[rng.integers(0, number)] = np.nan
        videos = rng.integers(0, rng.integers(1, 40), number)
        query = rng.normal(size=4).astype(np.float32)
        least = 0.1 if trial % 2 else -1.0
        segments = [
            StoredSegment(str(n), {"video_id": f"v{video}", "path": "/a.mp4", "start": 0.0, "end": 1.0}, vector)
            for n, (video, vector) in enumerate(zip(videos, vectors, strict=True))
        ]
        hits = exact_search(
            query, segments, SearchRequest(limit=limit, offset=offset, per_video=per_video, min_score=least)
        )
        cosines = vectors @ (query / np.linalg.norm(query))
        best: dict[int, list[str]] = {}
        for n in np.argsort(-cosines)[: int((cosines >= least).sum())]:  # NaN come last
            best.setdefault(int(videos[n]), []).append(str(n))
        page = list(best.values())[offset : offset + limit]
        assert [hit.id for hit in hits] == [id for ids in page for id in ids[:per_video]]
