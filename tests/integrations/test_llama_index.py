"""LlamaIndex finds the videos nearest to the adapted query, and refuses to store texts among the videos."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore

from dits_adapter import DITSQueryEncoder
from dits_adapter.errors import InputError
from dits_adapter.integrations.llama_index import DITSEmbedding
from tests.integrations.conftest import QUERY, assert_found


def test_index_finds_the_adapted_query(encoder, client, expected):
    store = QdrantVectorStore("videos", client=client, dense_vector_name="video", text_key="path")
    embedding = DITSEmbedding(encoder)
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=5)
    found = retriever.retrieve(QUERY)
    assert_found([(hit.text, hit.score) for hit in found], expected)
    assert (found[0].metadata["start"], found[0].metadata["end"]) == (1.0, 3.0)
    assert asyncio.run(embedding.aget_query_embedding(QUERY)) == embedding.get_query_embedding(QUERY)


def test_texts_are_not_stored(encoder, client):
    store = QdrantVectorStore("videos", client=client, dense_vector_name="video", text_key="path")
    embedding = DITSEmbedding(encoder)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    with pytest.raises(InputError, match="documents of a DITS index are videos"):
        index.insert(Document(text="a caption"))
    with pytest.raises(InputError, match="get_text_embedding"):
        embedding([TextNode(text="a caption")])
    with pytest.raises(InputError, match="get_text_embedding"):
        asyncio.run(embedding.aget_text_embedding_batch(["a caption"]))
    assert client.count("videos").count == 20


@pytest.mark.parametrize(
    "restore",
    [
        lambda embedding: pickle.loads(pickle.dumps(embedding)),
        lambda embedding: DITSEmbedding.from_dict(embedding.to_dict()),
        lambda embedding: DITSEmbedding.from_json(embedding.to_json()),
    ],
    ids=["pickle", "dict", "JSON"],
)
def test_a_restored_embedding_is_the_same(prepared, restore):
    encoder = DITSQueryEncoder.from_pretrained(prepared / "tiny-dits", strength=0.5, steps=4)
    embedding = DITSEmbedding(encoder, embed_batch_size=3)
    restored = restore(embedding)
    assert restored.get_query_embedding(QUERY) == pytest.approx(embedding.get_query_embedding(QUERY), abs=1e-6)
    assert restored.embed_batch_size == 3
    with pytest.raises(InputError, match="needs an encoder"):
        DITSEmbedding()
    with pytest.raises(InputError, match="in the place of an encoder"):
        DITSEmbedding(encoder, encoder_options={"strength": 1.0})
    assert restored.model_name == str(prepared / "tiny-dits")
