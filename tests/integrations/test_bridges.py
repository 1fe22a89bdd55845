"""DITS inside other tools: they find what the vectors say, and refuse to store texts among the videos."""

from __future__ import annotations

import asyncio
import copy
import importlib
import os
import pickle
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.cli import main
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.stores.base import CollectionMetadata, SegmentRow, VideoFile, video_id_of
from dits_adapter.stores.qdrant._schema import segment_point

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
SERVER = "http://localhost:6333"
QUERY = "a red ball rolls away"
WIDTH = 32


@pytest.fixture(scope="module")
def encoder(prepared: Path) -> DITSQueryEncoder:
    return DITSQueryEncoder.from_pretrained(prepared / "tiny-dits")


def points() -> list[models.PointStruct]:
    """One-segment videos at random places of the sphere."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(20):
        frames = rng.normal(size=(2, WIDTH)).astype(np.float32)
        segment = SimpleNamespace(
            start=1.0,
            end=3.0,
            timestamps=[1.5, 2.5],
            duration=4.0,
            fps=10.0,
            decoder="none",
            vector=frames.mean(axis=0),
            frame_vectors=frames,
        )
        file = VideoFile(f"/{n}.mp4", 1, 1, video_id_of(str(n)))
        made.append(segment_point(SegmentRow.of(file, segment, segments=1)))  # type: ignore[arg-type]
    return made


@pytest.fixture
def client(encoder: DITSQueryEncoder) -> Iterator[QdrantClient]:
    """A collection `videos` in memory, as ingestion makes it."""
    client = QdrantClient(":memory:")
    store = QdrantStore(client)
    store.create(CollectionMetadata(space=encoder.space))
    store.write_points(points())
    yield client
    client.close()


@pytest.fixture
def expected(encoder: DITSQueryEncoder) -> list[tuple[str, float]]:
    """The five videos nearest to the adapted query, and their cosines, by brute force."""
    vectors = np.array([point.vector["video"] for point in points()])  # type: ignore[call-overload,index]
    scores = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ encoder.encode_query(QUERY)
    plain = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ encoder.encode_document(QUERY)
    best = np.argsort(-scores)[:5]
    assert list(best) != list(np.argsort(-plain)[:5])  # else nothing here could tell adapted from plain
    return [(f"/{n}.mp4", float(scores[n])) for n in best]


def assert_found(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [path for path, _ in found] == [path for path, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


class TestLangChain:
    def test_vector_store_finds_the_adapted_query(self, encoder, client, expected):
        from langchain_qdrant import QdrantVectorStore

        from dits_adapter.integrations.langchain import DITSEmbeddings

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

    def test_texts_are_not_stored(self, encoder, client):
        from langchain_qdrant import QdrantVectorStore

        from dits_adapter.integrations.langchain import DITSEmbeddings

        embeddings = DITSEmbeddings(encoder)
        store = QdrantVectorStore(client, "videos", embeddings, vector_name="video")
        for texts in (["a caption"], ["clip.mp4"], ["dummy_text", "a caption"]):
            with pytest.raises(InputError, match=r"documents of a DITS index are videos.*dits-adapter ingest"):
                store.add_texts(texts)
        with pytest.raises(InputError, match="embed_documents"):
            asyncio.run(embeddings.aembed_documents(["a caption"]))
        assert client.count("videos").count == 20

    def test_widths_are_compared(self, encoder, client):
        from langchain_qdrant import QdrantVectorStore
        from langchain_qdrant.qdrant import QdrantVectorStoreError

        from dits_adapter.integrations.langchain import DITSEmbeddings

        client.create_collection("narrow", models.VectorParams(size=8, distance=models.Distance.COSINE))
        with pytest.raises(QdrantVectorStoreError, match="32-dimensional"):
            QdrantVectorStore(client, "narrow", DITSEmbeddings(encoder))


class TestLlamaIndex:
    def test_index_finds_the_adapted_query(self, encoder, client, expected):
        from llama_index.core import VectorStoreIndex
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        from dits_adapter.integrations.llama_index import DITSEmbedding

        store = QdrantVectorStore("videos", client=client, dense_vector_name="video", text_key="path")
        embedding = DITSEmbedding(encoder)
        retriever = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(
            similarity_top_k=5
        )
        found = retriever.retrieve(QUERY)
        assert_found([(hit.text, hit.score) for hit in found], expected)
        assert (found[0].metadata["start"], found[0].metadata["end"]) == (1.0, 3.0)
        assert asyncio.run(embedding.aget_query_embedding(QUERY)) == embedding.get_query_embedding(QUERY)

    def test_texts_are_not_stored(self, encoder, client):
        from llama_index.core import Document, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        from dits_adapter.integrations.llama_index import DITSEmbedding

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


class TestHaystack:
    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch):
        monkeypatch.syspath_prepend(INTEGRATIONS / "haystack")

    def test_pipeline_survives_saving(self, encoder, prepared, tmp_path, expected):
        from dits_components import DITSTextEmbedder, VideoRetriever
        from haystack import Pipeline

        with QdrantStore(tmp_path / "index") as store:
            store.create(CollectionMetadata(space=encoder.space))
            store.write_points(points())
        model = str(prepared / "tiny-dits")
        pipeline = Pipeline()
        pipeline.add_component("embedder", DITSTextEmbedder(model, strength=0.5))
        pipeline.add_component("retriever", VideoRetriever(model, str(tmp_path / "index"), top_k=5))
        pipeline.connect("embedder.embedding", "retriever.query_embedding")
        again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dits_components"])
        assert again.get_component("embedder").strength == 0.5
        again.get_component("embedder").strength = 1.0
        found = again.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
        assert_found([(document.content, document.score) for document in found], expected)
        assert found[0].meta.keys() == {"video_id", "start", "end", "timestamp"}

    def test_another_clip_is_refused(self, prepared, other_clip, tmp_path):
        from dits_components import VideoRetriever

        from dits_adapter.encoders.clip import load_clip
        from dits_adapter.errors import SpaceMismatchError
        from dits_adapter.space import EmbeddingSpace

        with QdrantStore(tmp_path / "index") as store:
            store.create(EmbeddingSpace.of(load_clip(other_clip)))
        retriever = VideoRetriever(str(prepared / "tiny-dits"), str(tmp_path / "index"))
        for _ in range(2):
            with pytest.raises(SpaceMismatchError, match="other-clip"):
                retriever.run([1.0] * WIDTH)


class TestFastembed:
    @pytest.fixture(autouse=True)
    def _fresh_registry(self, monkeypatch):
        from fastembed import TextEmbedding

        from dits_adapter.integrations.fastembed import DITSTextEmbedding

        monkeypatch.setattr(TextEmbedding, "EMBEDDINGS_REGISTRY", list(TextEmbedding.EMBEDDINGS_REGISTRY))
        monkeypatch.setattr(DITSTextEmbedding, "encoders", {})

    @pytest.fixture
    def query(self, encoder):
        from dits_adapter.integrations.fastembed import register

        register("dits/Tiny", encoder)
        return models.Document(text=QUERY, model="DITS/tiny")

    def test_documents_are_adapted_queries(self, client, query, expected):
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

    def test_async_client(self, query, expected):
        async def search():
            client = AsyncQdrantClient(":memory:")
            vectors = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
            await client.create_collection("videos", vectors_config={"video": vectors})
            stored = [point.model_copy(update={"vector": {"video": point.vector["video"]}}) for point in points()]
            await client.upsert("videos", stored)
            found = await client.query_points("videos", query=query, using="video", limit=5)
            return [(point.payload["path"], point.score) for point in found.points]

        assert_found(asyncio.run(search()), expected)

    def test_texts_are_not_stored(self, client, query):
        point = models.PointStruct(id=1, vector={"video": query}, payload={})
        with pytest.raises(InputError, match=r"model DITS/tiny got.*documents of a DITS index are videos"):
            client.upsert("videos", [point])
        assert client.count("videos").count == 20

    def test_fastembed_itself_knows_the_name(self, encoder, query):
        from fastembed import TextEmbedding

        model = TextEmbedding("dits/tiny")
        assert model.embedding_size == WIDTH
        np.testing.assert_allclose(next(iter(model.query_embed(QUERY))), encoder.encode_query(QUERY), atol=1e-6)
        assert len(list(model.query_embed(text for text in ("a", "b", "c")))) == 3
        with pytest.raises(InputError, match="videos"):
            list(model.passage_embed(["a caption"]))

    def test_names_and_options_that_would_be_ignored(self, encoder, client, query):
        from dits_adapter.integrations.fastembed import register

        with pytest.raises(InputError, match="fastembed's own"):
            register("qdrant/clip-ViT-B-32-text", encoder)
        louder = query.model_copy(update={"options": {"strength": 0.5}})
        with pytest.raises(InputError, match=r"no option 'strength'.*from_pretrained"):
            client.query_points("videos", query=louder, using="video")


class TestSentenceTransformers:
    def test_what_takes_a_model_takes_ours(self, encoder):
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        model = encoder.as_sentence_transformer()
        assert model.get_embedding_dimension() == WIDTH
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # as worker processes get it
            assert np.array_equal(copied.encode_query(QUERY), encoder.encode_query(QUERY))
        texts = {str(n): f"scene {n}" for n in range(8)}
        evaluator = InformationRetrievalEvaluator(
            {"q": QUERY}, texts, {"q": {"0"}}, mrr_at_k=[8], show_progress_bar=False
        )
        scores = encoder.encode_document(texts.values()) @ encoder.encode_query(QUERY)
        rank = 1 + int((scores > scores[0]).sum())
        assert evaluator(model)["cosine_mrr@8"] == pytest.approx(1 / rank)

    def test_a_saved_model_keeps_its_strength(self, prepared, tmp_path):
        from sentence_transformers import SentenceTransformer

        half = DITSQueryEncoder.from_pretrained(prepared / "tiny-dits", strength=0.5)
        half.as_sentence_transformer().save_pretrained(str(tmp_path))
        with pytest.raises(ValueError, match="trust_remote_code"):
            SentenceTransformer(str(tmp_path))
        again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
        np.testing.assert_allclose(again.encode_query(QUERY), half.encode_query(QUERY), atol=1e-6)
        np.testing.assert_allclose(again.encode(QUERY), half.encode_document(QUERY), atol=1e-6)


@pytest.mark.parametrize("name", ["sentence-transformers", "langchain", "llama-index", "haystack", "fastembed"])
def test_readmes_run_against_a_server(name, workplace, qdrant_server, capsys, monkeypatch):
    for model in ("clip", "dits"):  # under the bundled models' names, which come first once they are there
        shutil.copytree(f"tiny-{model}", f"demo-{model}")
    os.rename("videos", "my-videos")
    monkeypatch.syspath_prepend(INTEGRATIONS / name)
    collection = f"videos-{uuid.uuid4().hex}"
    readme = (INTEGRATIONS / name / "README.md").read_text("utf-8").replace(SERVER, qdrant_server)
    (command,) = re.findall(r"^dits-adapter (.*)$", readme, re.MULTILINE)
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    if name == "haystack":  # whose component has the collection's name by default
        program = program.replace("top_k=3", f"top_k=3, collection={collection!r}")
    try:
        assert main([*shlex.split(command), "--collection", collection]) == 0
        capsys.readouterr()
        exec(
            compile(program.replace('"videos"', repr(collection)), f"{name}/README.md", "exec"), {"__name__": name}
        )
        printed = capsys.readouterr().out.splitlines()
        encoder = DITSQueryEncoder.from_pretrained("demo-dits")
        with QdrantStore(qdrant_server, collection) as store:
            best = store.search(encoder.encode_query(QUERY), limit=1)[0]
    finally:
        QdrantClient(url=qdrant_server, check_compatibility=False).delete_collection(collection)
    score, path, start, end = printed[0].split()
    assert (path, float(start), float(end)) == (best.path, best.start, best.end)
    assert float(score) == pytest.approx(best.score, abs=2e-3)
    assert len(printed) == (4 if name == "fastembed" else 3)


@pytest.mark.parametrize(
    ("bridge", "package"),
    [("langchain", "langchain_core"), ("llama_index", "llama_index.core"), ("fastembed",) * 2],
)
def test_a_missing_package_is_said_with_the_pip_line(bridge, package, monkeypatch):
    extra = bridge.replace("_", "-")
    for module in [name for name in sys.modules if name.startswith((package, f"dits_adapter.bridges.{bridge}"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "dits-adapter\[{extra}\]"'):
        importlib.import_module(f"dits_adapter.bridges.{bridge}")
