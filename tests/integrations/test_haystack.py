"""Haystack pipelines find the videos nearest to the adapted query, and survive saving."""

from __future__ import annotations

import pytest
from haystack import Pipeline

from dits_adapter import QdrantStore
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import SpaceMismatchError
from dits_adapter.integrations.haystack import DITSTextEmbedder, VideoRetriever
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.rows import CollectionMetadata
from tests.integrations.conftest import QUERY, WIDTH, assert_found, rows


def test_pipeline_survives_saving(encoder, prepared, tmp_path, expected):
    with QdrantStore(tmp_path / "index") as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write(rows())
    model = str(prepared / "tiny-dits")
    pipeline = Pipeline()
    pipeline.add_component("embedder", DITSTextEmbedder(model, strength=0.5))
    pipeline.add_component("retriever", VideoRetriever(model, str(tmp_path / "index"), top_k=5))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dits_adapter"])
    assert again.get_component("embedder").strength == 0.5
    again.get_component("embedder").strength = 1.0
    found = again.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
    assert_found([(document.content, document.score) for document in found], expected)
    assert found[0].meta.keys() == {"video_id", "start", "end", "timestamp"}


def test_another_clip_is_refused(prepared, other_clip, tmp_path):
    with QdrantStore(tmp_path / "index") as store:
        store.create(CollectionMetadata(space=EmbeddingSpace.of(load_encoder(other_clip))))
    retriever = VideoRetriever(str(prepared / "tiny-dits"), str(tmp_path / "index"))
    for _ in range(2):
        with pytest.raises(SpaceMismatchError, match="other-clip"):
            retriever.run([1.0] * WIDTH)
