"""LangChain finds the videos nearest to the adapted query, and refuses to store texts among the videos."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from langchain_qdrant import QdrantVectorStore
from langchain_qdrant.qdrant import QdrantVectorStoreError
from qdrant_client import models

from dits_adapter import DITSQueryEncoder
from dits_adapter.errors import InputError
from dits_adapter.integrations.langchain import DITSEmbeddings
from tests.integrations.conftest import QUERY, assert_found


def test_the_vector_store_finds_the_adapted_query(encoder, client, expected):
    store = QdrantVectorStore(
        client, "videos", DITSEmbeddings(encoder), vector_name="video", content_payload_key="path"
    )
    found = store.similarity_search_with_score(QUERY, k=5)
    assert_found([(document.page_content, score) for document, score in found], expected)
    again = asyncio.run(store.asimilarity_search_with_score(QUERY, k=5))
    assert_found([(document.page_content, score) for document, score in again], expected)
    retrieved = store.as_retriever(search_kwargs={"k": 5}).invoke(QUERY)
    assert [document.page_content for document in retrieved] == [path for path, _ in expected]
    diverse = store.max_marginal_relevance_search(QUERY, k=3)
    assert diverse[0].page_content == expected[0][0]


def test_texts_are_not_stored(encoder, client):
    embeddings = DITSEmbeddings(encoder)
    store = QdrantVectorStore(client, "videos", embeddings, vector_name="video")
    for texts in (["a caption"], ["clip.mp4"], ["dummy_text", "a caption"]):
        with pytest.raises(InputError, match=r"documents of a DITS index are videos.*dits-adapter ingest"):
            store.add_texts(texts)
    with pytest.raises(InputError, match="embed_documents"):
        asyncio.run(embeddings.aembed_documents(["a caption"]))
    assert client.count("videos").count == 20


def test_widths_are_compared(encoder, client):
    client.create_collection("narrow", models.VectorParams(size=8, distance=models.Distance.COSINE))
    with pytest.raises(QdrantVectorStoreError, match="32-dimensional"):
        QdrantVectorStore(client, "narrow", DITSEmbeddings(encoder))


def test_another_process_gets_the_same_embeddings(prepared):
    half = DITSEmbeddings(DITSQueryEncoder.from_pretrained(prepared / "tiny-dits", strength=0.5))
    travelled = pickle.loads(pickle.dumps(half))
    assert travelled.embed_query(QUERY) == pytest.approx(half.embed_query(QUERY), abs=1e-6)
