"""fastembed and qdrant-client's inference find the videos nearest to the adapted query."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fastembed import TextEmbedding
from qdrant_client import AsyncQdrantClient, models

from dits_adapter.errors import InputError
from dits_adapter.integrations.fastembed import DITSTextEmbedding, register
from tests.integrations.conftest import QUERY, WIDTH, assert_found, rows


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch):
    monkeypatch.setattr(TextEmbedding, "EMBEDDINGS_REGISTRY", list(TextEmbedding.EMBEDDINGS_REGISTRY))
    monkeypatch.setattr(DITSTextEmbedding, "encoders", {})


@pytest.fixture
def query(encoder):
    register("dits/Tiny", encoder)
    return models.Document(text=QUERY, model="DITS/tiny")


def test_documents_are_adapted_queries(client, query, expected):
    def paths(points):
        return [(point.payload["path"], point.score) for point in points]

    ask = {"query": query, "using": "video", "limit": 5}
    assert_found(paths(client.query_points("videos", **ask).points), expected)
    batch = client.query_batch_points("videos", [models.QueryRequest(**ask, with_payload=True)] * 2)
    assert_found(paths(batch[1].points), expected)
    groups = client.query_points_groups("videos", "video_id", **ask).groups
    assert_found(paths([group.hits[0] for group in groups]), expected)
    prefetch = models.Prefetch(**ask)
    fused = client.query_points("videos", prefetch=prefetch, query=models.FusionQuery(fusion="rrf"), limit=5)
    assert [point.payload["path"] for point in fused.points] == [path for path, _ in expected]


def test_async_client(query, expected):
    async def search():
        client = AsyncQdrantClient(":memory:")
        vectors = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
        await client.create_collection("videos", vectors_config={"video": vectors})
        stored = [
            models.PointStruct(id=row.id, vector={"video": row.vector.tolist()}, payload=row.payload())
            for row in rows()
        ]
        await client.upsert("videos", stored)
        found = await client.query_points("videos", query=query, using="video", limit=5)
        return [(point.payload["path"], point.score) for point in found.points]

    assert_found(asyncio.run(search()), expected)


def test_texts_are_not_stored(client, query):
    point = models.PointStruct(id=1, vector={"video": query}, payload={})
    with pytest.raises(InputError, match=r"model DITS/tiny got.*documents of a DITS index are videos"):
        client.upsert("videos", [point])
    assert client.count("videos").count == 20


def test_fastembed_itself_knows_the_name(encoder, query):
    model = TextEmbedding("dits/tiny")
    assert model.embedding_size == WIDTH
    np.testing.assert_allclose(next(iter(model.query_embed(QUERY))), encoder.encode_query(QUERY), atol=1e-6)
    assert len(list(model.query_embed(text for text in ("a", "b", "c")))) == 3
    with pytest.raises(InputError, match="videos"):
        list(model.passage_embed(["a caption"]))


def test_names_and_options_that_would_be_ignored(encoder, client, query):
    with pytest.raises(InputError, match="fastembed's own"):
        register("qdrant/clip-ViT-B-32-text", encoder)
    louder = query.model_copy(update={"options": {"strength": 0.5}})
    with pytest.raises(InputError, match=r"no option 'strength'.*from_pretrained"):
        client.query_points("videos", query=louder, using="video")
