"""Requests of Qdrant: their fields are parameters of the client's methods, of each kind of client."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from dits_adapter.stores.qdrant import _requests
from dits_adapter.stores.qdrant._requests import Count, Request, Scroll, call
from dits_adapter.stores.qdrant.edge._client import EdgeClient

REQUESTS = [
    kind
    for kind in vars(_requests).values()
    if isinstance(kind, type) and issubclass(kind, Request) and "method" in vars(kind)
]


def test_there_are_requests() -> None:
    assert {"Scroll", "Count", "QueryBatch", "QueryGroups", "Retrieve"} <= {kind.__name__ for kind in REQUESTS}


@pytest.mark.parametrize("client", [QdrantClient, AsyncQdrantClient, EdgeClient])
@pytest.mark.parametrize("request_kind", REQUESTS)
def test_fields_are_parameters_of_the_clients_method(request_kind: type[Request[Any]], client: type) -> None:
    parameters = inspect.signature(getattr(client, request_kind.method)).parameters
    names = {field.name for field in fields(request_kind)}
    assert names <= parameters.keys()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind in kinds
    }
    assert required - {"self"} <= names


def test_a_request_calls_its_method_with_all_of_its_fields() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("c", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert("c", [models.PointStruct(id=n, vector=[1, n], payload={"n": n}) for n in range(5)])
    of_two = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=3))])
    assert call(client, Count(collection_name="c", count_filter=of_two)).count == 2
    records, offset = call(
        client, Scroll(collection_name="c", limit=2, offset=1, with_payload=["n"], with_vectors=True)
    )
    assert [(record.id, record.payload) for record in records] == [(1, {"n": 1}), (2, {"n": 2})]
    assert records[0].vector is not None
    assert offset == 3


def test_a_plan_is_sent_the_answers() -> None:
    plan = iter(Count(collection_name="c"))
    assert next(plan) == Count(collection_name="c")
    with pytest.raises(StopIteration) as end:
        plan.send(models.CountResult(count=3))
    assert end.value.value == models.CountResult(count=3)
