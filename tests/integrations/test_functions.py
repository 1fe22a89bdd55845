"""Query functions of databases: kept by name and options, for queries alone, and for vectors of their space."""

from __future__ import annotations

import json

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunctionConfig
from pymilvus import DataType, MilvusClient

from dits_adapter import CollectionMetadata, DITSQueryEncoder, VideoSide, open_store
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.integrations.lancedb import DITSEmbeddingFunction as LanceDBFunction
from dits_adapter.integrations.milvus import DITSEmbeddingFunction as MilvusFunction
from dits_adapter.space import EmbeddingSpace
from tests.integrations.conftest import QUERY, WIDTH, assert_found, rows

VIDEOS = "documents of a DITS index are videos"


@pytest.fixture(scope="module")
def model(prepared):
    return str(prepared / "tiny-dits")


@pytest.fixture(scope="module")
def elsewhere(other_clip):
    """The space of another CLIP's videos, as a database keeps it."""
    return VideoSide.of(load_encoder(other_clip)).model_dump(mode="json")


@pytest.fixture
def halfway(model, expected):
    """Videos and scores that half of the movement finds: others than those of a function that lost the option."""
    query = DITSQueryEncoder.from_pretrained(model, strength=0.5).encode_query(QUERY)
    scores = np.array([row.vector for row in rows()]) @ query
    best = np.argsort(-scores)[:5]
    assert [score for _, score in expected] != pytest.approx(scores[best].tolist(), abs=1e-3)
    return [(f"/{n}.mp4", float(scores[n])) for n in best]


def test_chroma(model, elsewhere, halfway, expected, tmp_path):
    chromadb = pytest.importorskip("chromadb")
    from dits_adapter.integrations.chroma import DITSEmbeddingFunction

    def nearest(collection):
        found = collection.query(query_texts=[QUERY], n_results=5)
        return [(m["path"], 1 - d) for m, d in zip(found["metadatas"][0], found["distances"][0], strict=True)]

    client = chromadb.PersistentClient(str(tmp_path), chromadb.Settings(anonymized_telemetry=False))
    function = DITSEmbeddingFunction(model, {"strength": 0.5})
    collection = client.create_collection("videos", embedding_function=function)
    collection.add(
        ids=[row.id for row in rows()],
        embeddings=[row.vector for row in rows()],
        metadatas=[{"path": row.path} for row in rows()],
    )
    assert_found(nearest(collection), halfway)
    again = client.get_collection("videos")
    assert_found(nearest(again), halfway)
    kept = again.configuration_json["embedding_function"]
    assert (kept["name"], kept["config"]["options"]["strength"]) == ("dits_adapter", 0.5)
    assert again.configuration_json["hnsw"]["space"] == "cosine"
    for store_texts in (collection.add, collection.upsert, again.update):
        with pytest.raises(ValueError, match=VIDEOS):
            store_texts(ids=[rows()[0].id], documents=["a caption"])
    assert collection.count() == 20

    function.check(again)
    again.modify(configuration={"embedding_function": DITSEmbeddingFunction(model)})
    assert_found(nearest(client.get_collection("videos")), expected)
    with pytest.raises(StoreError, match="does not say which embedding space"):
        function.check(client.create_collection("texts", embedding_function=None))
    foreign = DITSEmbeddingFunction(model, space=elsewhere)
    other = client.create_collection("others", embedding_function=foreign)
    with pytest.raises(SpaceMismatchError, match="other-clip"):
        other.query(query_texts=[QUERY])
    for replace in (function.check, lambda other: other.modify(configuration={"embedding_function": function})):
        with pytest.raises(SpaceMismatchError, match="other-clip"):
            replace(other)


def test_lancedb(model, elsewhere, halfway, tmp_path):
    def nearest(table):
        found = table.search(QUERY).distance_type("cosine").limit(5).to_list()
        return [(row["path"], 1 - row["_distance"]) for row in found]

    def made(name, **options):
        function = LanceDBFunction.create(model=model, **options)
        config = EmbeddingFunctionConfig(vector_column="vector", source_column="path", function=function)
        schema = pa.schema([("path", pa.string()), ("vector", pa.list_(pa.float32(), function.ndims()))])
        return database.create_table(name, schema=schema, embedding_functions=[config])

    database = lancedb.connect(tmp_path)
    table = made("videos", options={"strength": 0.5})
    table.add([{"path": row.path, "vector": row.vector} for row in rows()])
    assert_found(nearest(table), halfway)
    again = lancedb.connect(tmp_path).open_table("videos")
    assert_found(nearest(again), halfway)
    (kept,) = json.loads(again.schema.metadata[b"embedding_functions"])
    assert (kept["name"], kept["model"]["options"]["strength"]) == ("dits_adapter", 0.5)
    with pytest.raises(RuntimeError, match=VIDEOS):  # as LanceDB passes errors on
        again.add([{"path": "a caption"}])
    assert again.count_rows() == 20
    with pytest.raises(SpaceMismatchError, match="other-clip"):
        made("others", space=elsewhere).search(QUERY)
    with pytest.raises(InputError, match="is empty or blank"):
        again.search(" ")


def test_milvus(model, elsewhere, halfway, encoder, other_clip, tmp_path):
    client = MilvusClient(str(tmp_path / "videos.db"))
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=100)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("clips", schema=schema, index_params=index)
    client.insert("clips", [{"id": row.id, "vector": row.vector, "path": row.path} for row in rows()])

    with pytest.raises(StoreError, match="keeps no embedding function"):
        MilvusFunction.of(client, "clips")
    MilvusFunction(model, {"strength": 0.5}).save(client, "clips")
    function = MilvusFunction.of(client, "clips")
    assert function.dim == WIDTH
    (found,) = client.search("clips", function.encode_queries([QUERY]), limit=5, output_fields=["path"])
    assert_found([(hit["entity"]["path"], hit["distance"]) for hit in found], halfway)
    for refused in (function, function.encode_documents):
        with pytest.raises(InputError, match=VIDEOS):
            refused(["a caption"])
    with pytest.raises(SpaceMismatchError, match="other-clip"):
        MilvusFunction(model, space=elsewhere).encode_queries([QUERY])
    client.close()

    spaces = {"ours": encoder.space, "others": EmbeddingSpace.of(load_encoder(other_clip))}
    address = f"milvus://{tmp_path / 'videos.db'}"
    for name, space in spaces.items():  # that `dits-adapter ingest` makes
        with open_store(address, name) as store:
            store.create(CollectionMetadata(space=space))
    client = MilvusClient(str(tmp_path / "videos.db"))
    MilvusFunction(model).save(client, "ours")
    with pytest.raises(SpaceMismatchError, match="other-clip"):
        MilvusFunction(model).save(client, "others")
    client.close()


def test_an_unknown_option_is_refused_by_name(model):
    with pytest.raises(InputError, match="no option 'strenght'"):
        MilvusFunction(model, {"strenght": 0.5})
    with pytest.raises(InputError, match=r"space\.widths"):
        MilvusFunction(model, space={"widths": 3})
