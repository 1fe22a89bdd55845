"""Values that are no texts are refused at every bridge, in the words of the query encoder."""

from __future__ import annotations

import pytest
from fastembed import TextEmbedding

from dits_adapter.errors import InputError
from dits_adapter.integrations.fastembed import register
from dits_adapter.integrations.haystack import DITSTextEmbedder
from dits_adapter.integrations.langchain import DITSEmbeddings
from dits_adapter.integrations.llama_index import DITSEmbedding
from tests.no_texts import NO_TEXTS


@pytest.fixture(scope="module")
def bridges(encoder, prepared):
    register("dits/texts", encoder)
    model = encoder.as_sentence_transformer()
    return {
        "fastembed": lambda text: list(TextEmbedding("dits/texts").query_embed([text])),
        "haystack": DITSTextEmbedder(str(prepared / "tiny-dits")).run,
        "langchain": DITSEmbeddings(encoder).embed_query,
        "llama_index": DITSEmbedding(encoder).get_query_embedding,
        "sentence_transformers": model.encode_query,
        "sentence_transformers, documents": model.encode_document,
    }


@pytest.mark.parametrize(("text", "reason"), NO_TEXTS.values(), ids=NO_TEXTS)
@pytest.mark.parametrize(
    "bridge",
    [
        *("fastembed", "haystack", "langchain", "llama_index"),
        *("sentence_transformers", "sentence_transformers, documents"),
    ],
)
def test_a_query(bridges, bridge, text, reason):
    assert len(bridges[bridge]("a dog"))
    with pytest.raises(InputError, match=f"^(the text|text 0) {reason}"):
        bridges[bridge](text)
