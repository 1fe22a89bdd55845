"""Retrievers of LangChain, LlamaIndex and Haystack: videos, not segments, with seconds and probabilities."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest
from haystack import Pipeline
from langchain_core.load import dumps, loads

from dits_adapter import CollectionMetadata, MemoryStore, VideoFilter, VideoSearch, open_store
from dits_adapter.errors import InputError
from dits_adapter.integrations import haystack, langchain, llama_index
from tests.integrations.conftest import QUERY, rows
from tests.no_texts import NO_TEXTS

NUMBER = {"langchain": "k", "llama_index": "similarity_top_k", "haystack": "top_k"}
FILTER = {"langchain": "filter", "llama_index": "filters", "haystack": "filters"}
MADE = {module.__name__.rpartition(".")[2]: module.VideoRetriever for module in (haystack, langchain, llama_index)}


def documents(retriever, text=QUERY):
    """Ask a retriever: (content, id, score, metadata) of each document."""
    if isinstance(retriever, langchain.VideoRetriever):
        return [(d.page_content, d.id, d.metadata["score"], d.metadata) for d in retriever.invoke(text)]
    if isinstance(retriever, llama_index.VideoRetriever):
        return [(n.text, n.node_id, n.score, n.metadata) for n in retriever.retrieve(text)]
    return [(d.content, d.id, d.score, d.meta) for d in retriever.run(text)["documents"]]


async def documents_async(retriever):
    if isinstance(retriever, langchain.VideoRetriever):
        return [(d.page_content, d.id, d.metadata["score"], d.metadata) for d in await retriever.ainvoke(QUERY)]
    if isinstance(retriever, llama_index.VideoRetriever):
        return [(n.text, n.node_id, n.score, n.metadata) for n in await retriever.aretrieve(QUERY)]
    return [(d.content, d.id, d.score, d.meta) for d in (await retriever.run_async(QUERY))["documents"]]


@pytest.fixture(scope="module")
def address(encoder, tmp_path_factory):
    """Address of a collection of twenty videos of three segments each, which crowd one another."""
    location = f"lancedb://{tmp_path_factory.mktemp('retrievers')}/index"
    with open_store(location) as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write(rows(3))
    return location


@pytest.fixture(scope="module")
def search(prepared, address):
    with VideoSearch(prepared / "tiny-calibrated", address) as search:
        yield search


@pytest.fixture(params=MADE)
def name(request):
    return request.param


def test_ten_are_ten_videos_with_their_seconds_and_probabilities(name, search):
    found = documents(MADE[name](search=search))
    answer = search.search(QUERY)
    assert len({meta["video_id"] for *_, meta in found}) == len(found) == 10
    for (content, id, score, meta), match in zip(found, answer.matches, strict=True):
        hit = match.hit
        assert (content, id) == (hit.path, str(hit.id))
        assert score == meta["score"] == hit.score
        assert meta == {
            "video_id": hit.video_id,
            "path": hit.path,
            "start": hit.start,
            "end": hit.end,
            "timestamp": hit.timestamp,
            "score": hit.score,
            "probability": match.probability,
            "probability_of_any": answer.probability_of_any,
            "duration": hit.payload["duration"],
            "fps": 10.0,
        }
        assert None not in meta.values()
    assert asyncio.run(documents_async(MADE[name](search=search))) == found


def test_least_probabilities_filters_and_options(name, search):
    def paths(**options):
        options = {NUMBER[name]: 20, **options}
        return [meta["path"] for *_, meta in documents(MADE[name](search=search, **options))]

    answer = search.search(QUERY, limit=20)
    least = (answer.matches[2].probability + answer.matches[3].probability) / 2
    assert paths(min_probability=least) == [match.hit.path for match in answer.matches[:3]]
    assert paths(min_probability_of_any=answer.probability_of_any + 1e-6) == []
    for filter in (VideoFilter(max_duration=6.5), {"max_duration": 6.5}):
        assert set(paths(**{FILTER[name]: filter})) == {f"/{n}.mp4" for n in range(5)}
    three = paths(search_options={"per_video": 3}, **{NUMBER[name]: 2})
    assert three == [path for match in answer.matches[:2] for path in [match.hit.path] * 3]


@pytest.mark.parametrize("form", ["saved", "pickled"])
def test_a_restored_retriever_finds_the_same(name, prepared, address, form):
    search = VideoSearch(prepared / "tiny-calibrated", address, encoder_options={"strength": 0.5})
    retriever = MADE[name](search=search, **{NUMBER[name]: 3, FILTER[name]: VideoFilter(min_duration=4)})
    if form == "pickled":
        again = pickle.loads(pickle.dumps(retriever))
    elif name == "langchain":
        written = dumps(retriever)
        again = loads(written, allowed_objects=[type(retriever)], valid_namespaces=["dits_adapter"])
    else:
        again = type(retriever).from_dict(json.loads(json.dumps(retriever.to_dict())))
    assert documents(again) == documents(retriever)
    assert len(documents(again)) == 3


def test_what_cannot_be_is_refused_in_words(name, search, encoder):
    for options, reason in (
        ({NUMBER[name]: 0}, "limit is 0"),
        ({FILTER[name]: {"max_seconds": 3}}, "no option 'max_seconds'"),
        ({"search_options": {"limit": 3}}, "search_options has 'limit'"),
        ({"search_options": {"reranking": "maxsim"}}, "no option 'reranking'"),
        ({"min_probability": 1.0}, "min_probability is 1.0"),
        ({"search": {"model": "demo-dits"}}, "needs a store"),
    ):
        with pytest.raises(InputError, match=reason):
            MADE[name](**{"search": search, **options})
    text, reason = next(iter(NO_TEXTS.values()))
    if isinstance(text, str):
        with pytest.raises(InputError, match=reason):
            documents(MADE[name](search=search), text)
    store = MemoryStore()
    store.create(CollectionMetadata(space=encoder.space))
    around_a_store = MADE[name](search=VideoSearch(encoder, store))
    assert documents(around_a_store) == []
    with pytest.raises(InputError, match="around a store cannot be saved"):
        pickle.dumps(around_a_store)
    if name == "langchain":
        with pytest.raises(InputError, match=r"no option .min_probabilty.; its options are .*min_probability"):
            MADE[name](search=search, min_probabilty=0.5)
        assert '"not_implemented"' in dumps(around_a_store)  # as its tracing has it


def test_one_query_may_have_its_own_number_and_filter(search):
    retriever = langchain.VideoRetriever(search=search)
    short = {"max_duration": 6.5}
    assert len(retriever.invoke(QUERY, k=3)) == 3
    assert len(retriever.invoke(QUERY, filter=short)) == 5
    assert len(asyncio.run(retriever.ainvoke(QUERY, k=2, filter=short))) == 2
    component = haystack.VideoRetriever(search)
    assert len(component.run(QUERY, top_k=3)["documents"]) == 3
    assert len(component.run(QUERY, filters=short)["documents"]) == 5


def test_a_language_model_reads_the_path_and_the_seconds_alone(search):
    (node,) = llama_index.VideoRetriever(search, 1).retrieve(QUERY)
    read = node.node.get_content("llm")
    assert f"path: {node.metadata['path']}" in read
    assert f"start: {node.metadata['start']}" in read
    assert "probability" not in read
    assert "fps" not in read


def test_a_pipeline_survives_saving(search):
    pipeline = Pipeline()
    pipeline.add_component("retriever", haystack.VideoRetriever(search, top_k=2))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dits_adapter"])
    again.warm_up()
    answer = again.run({"retriever": {"query": QUERY}})["retriever"]
    assert len(answer["documents"]) == 2
    assert answer["probability_of_any"] == search.search(QUERY, limit=2).probability_of_any
    waiting = Pipeline()
    waiting.add_component("retriever", haystack.VideoRetriever(search, top_k=2))
    found = asyncio.run(waiting.run_async({"retriever": {"query": QUERY}}))
    assert found["retriever"] == answer
