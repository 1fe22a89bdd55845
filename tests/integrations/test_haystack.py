"""The text embedder of Haystack, for document stores of its own; the retriever is in `test_retrievers`."""

from __future__ import annotations

import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from dits_adapter.errors import InputError
from dits_adapter.integrations.haystack import DITSTextEmbedder
from tests.integrations.conftest import QUERY, assert_found, rows


def test_a_document_store_finds_the_adapted_query(prepared, expected):
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents([Document(id=row.id, content=row.path, embedding=row.vector.tolist()) for row in rows()])
    pipeline = Pipeline()
    pipeline.add_component("embedder", DITSTextEmbedder(str(prepared / "tiny-dits"), strength=0.5))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dits_adapter"])
    embedder = again.get_component("embedder")
    assert embedder.strength == 0.5
    embedder.strength = 1.0
    again.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5))
    again.connect("embedder.embedding", "retriever.query_embedding")
    found = again.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
    assert_found([(document.content, document.score) for document in found], expected)


def test_options_that_would_be_left_out_are_refused():
    for options, reason in (
        ({"strength": 0.5}, "has an argument for"),
        ({"backed": "onnx"}, "no option 'backed'"),
    ):
        with pytest.raises(InputError, match=reason):
            DITSTextEmbedder("demo-dits", encoder_options=options)
