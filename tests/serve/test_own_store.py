"""The search page over a store that is none of Qdrant's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dits_adapter import VideoEncoder
from dits_adapter.serve._app import create_app
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.requests import VideoFilter
from tests.serve.conftest import QUERY


@pytest.fixture(scope="module")
def own(library, tiny_clip, encoder):
    """The same videos in a store in memory."""
    store = MemoryStore(space=encoder.space)
    ingest(store, library, VideoEncoder.from_pretrained(tiny_clip), segment_seconds=2, progress=False)
    searcher = Searcher(store, encoder)
    searcher.load()
    return searcher


@pytest.mark.parametrize(
    "options",
    [
        CompareOptions(),
        CompareOptions(limit=2, per_video=2, strength=0.5, steps=3),
        CompareOptions(filter=VideoFilter(words="clip mp4", max_duration=5)),
        CompareOptions(min_probability=0.5),
    ],
)
def test_rankings_and_map_are_those_of_qdrant(own, searcher, options):
    mine, qdrant = own.compare(QUERY, options), searcher.compare(QUERY, options)
    for side in ("plain", "adapted"):
        results = getattr(mine, side)
        assert results
        for result, other in zip(results, getattr(qdrant, side), strict=True):
            assert (result.video_id, result.start, result.timestamp) == (
                other.video_id,
                other.start,
                other.timestamp,
            )
            assert result.score == pytest.approx(other.score, abs=1e-5)
            assert result.probability == pytest.approx(other.probability, abs=1e-4)
            assert result.position == pytest.approx(other.position, abs=2e-3)
    assert np.shape(mine.map.cloud) == np.shape(qdrant.map.cloud)
    assert own.about() == searcher.about()


def test_files_are_served(own):
    http = TestClient(create_app(own), base_url="http://localhost")
    hit = http.get("/api/search", params={"query": QUERY}).json()["adapted"][0]
    assert http.get(hit["video"]).content == Path(hit["path"]).read_bytes()
    assert http.get(hit["frame"]).headers["content-type"] == "image/jpeg"
    assert http.get("/api/videos/unknown").status_code == 404
