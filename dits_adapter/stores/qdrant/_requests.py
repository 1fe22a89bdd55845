"""Requests of Qdrant as values: each is a method of the client, and its fields are the method's arguments.

A plan is a generator that yields requests and is sent their answers, so that clients that are called and clients
that are awaited follow the same plan. `yield from Count(…)` in a plan is the answer, with its type.

Each request may be made twice, in a row or while the first is still under way, and the collection ends the same.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.client_base import QdrantBase

__all__ = [
    "BatchUpdate",
    "CollectionExists",
    "Count",
    "CreateCollection",
    "CreatePayloadIndex",
    "Delete",
    "DeleteCollection",
    "DeletePayload",
    "DeleteVectors",
    "Facet",
    "GetAliases",
    "GetCollection",
    "GetCollections",
    "QueryBatch",
    "QueryGroups",
    "Request",
    "RequestPlan",
    "Retrieve",
    "Scroll",
    "SetPayload",
    "UpdateAliases",
    "UpdateCollection",
    "Upsert",
    "call",
]

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Answer]):
    """A method of a Qdrant client with its arguments.

    Attributes:
        method: name of the method.
    """

    method: ClassVar[str]

    def __iter__(self) -> Generator[Request[Any], Any, Answer]:
        answer: Answer = yield self
        return answer


RequestPlan = Generator[Request[Any], Any, T]
"""Generator that yields requests, is sent the answers and returns a result."""


@dataclass(frozen=True, kw_only=True)
class GetCollections(Request[models.CollectionsResponse]):
    """List all collections."""

    method = "get_collections"


@dataclass(frozen=True, kw_only=True)
class GetAliases(Request[models.CollectionsAliasesResponse]):
    """List all aliases."""

    method = "get_aliases"


@dataclass(frozen=True, kw_only=True)
class _OfCollection(Request[Answer]):
    collection_name: str


@dataclass(frozen=True, kw_only=True)
class CollectionExists(_OfCollection[bool]):
    """Check whether a collection exists."""

    method = "collection_exists"


@dataclass(frozen=True, kw_only=True)
class GetCollection(_OfCollection[models.CollectionInfo]):
    """Describe a collection."""

    method = "get_collection"


@dataclass(frozen=True, kw_only=True)
class Scroll(_OfCollection[tuple[list[models.Record], models.ExtendedPointId | None]]):
    """Read points in the order of their ids; the answer ends with the id at which the next page begins."""

    method = "scroll"
    scroll_filter: models.Filter | None = None
    limit: int = 1000
    offset: models.ExtendedPointId | None = None
    with_payload: bool | Sequence[str] = True
    with_vectors: bool | Sequence[str] = False


@dataclass(frozen=True, kw_only=True)
class Retrieve(_OfCollection[list[models.Record]]):
    """Read points by their ids."""

    method = "retrieve"
    ids: Sequence[models.ExtendedPointId]
    with_payload: bool = False
    with_vectors: bool | Sequence[str] = False


@dataclass(frozen=True, kw_only=True)
class Count(_OfCollection[models.CountResult]):
    """Count points."""

    method = "count"
    count_filter: models.Filter | None = None
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Facet(_OfCollection[models.FacetResponse]):
    """List the values of an indexed payload field."""

    method = "facet"
    key: str
    facet_filter: models.Filter | None = None
    limit: int = 10
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class QueryBatch(_OfCollection[list[models.QueryResponse]]):
    """Search with several queries."""

    method = "query_batch_points"
    requests: Sequence[models.QueryRequest]


@dataclass(frozen=True, kw_only=True)
class QueryGroups(_OfCollection[models.GroupsResult]):
    """Search for groups of points."""

    method = "query_points_groups"
    group_by: str
    group_size: int
    query: Sequence[float] | models.SparseVector
    using: str | None
    limit: int
    query_filter: models.Filter | None = None
    score_threshold: float | None = None
    search_params: models.SearchParams | None = None
    with_payload: bool | Sequence[str] = True


@dataclass(frozen=True, kw_only=True)
class CreateCollection(_OfCollection[bool]):
    """Make a collection; made again, it is refused with status 409 and stays as it is."""

    method = "create_collection"
    vectors_config: Mapping[str, models.VectorParams]
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class UpdateCollection(_OfCollection[bool]):
    """Change options of a collection, or fields of its metadata."""

    method = "update_collection"
    optimizers_config: models.OptimizersConfigDiff | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class DeleteCollection(_OfCollection[bool]):
    """Delete a collection; False where there is none."""

    method = "delete_collection"


@dataclass(frozen=True, kw_only=True)
class CreatePayloadIndex(_OfCollection[models.UpdateResult]):
    """Index a payload field."""

    method = "create_payload_index"
    field_name: str
    field_schema: Any


@dataclass(frozen=True, kw_only=True)
class Upsert(_OfCollection[models.UpdateResult]):
    """Store points; those of the same id are replaced."""

    method = "upsert"
    points: Sequence[models.PointStruct]


@dataclass(frozen=True, kw_only=True)
class Delete(_OfCollection[models.UpdateResult]):
    """Delete points."""

    method = "delete"
    points_selector: models.FilterSelector


@dataclass(frozen=True, kw_only=True)
class SetPayload(_OfCollection[models.UpdateResult]):
    """Set payload fields of points."""

    method = "set_payload"
    payload: Mapping[str, Any]
    points: models.Filter


@dataclass(frozen=True, kw_only=True)
class DeletePayload(_OfCollection[models.UpdateResult]):
    """Delete payload fields of points."""

    method = "delete_payload"
    keys: Sequence[str]
    points: models.Filter


@dataclass(frozen=True, kw_only=True)
class DeleteVectors(_OfCollection[models.UpdateResult]):
    """Delete vectors of points."""

    method = "delete_vectors"
    vectors: Sequence[str]
    points: models.Filter


@dataclass(frozen=True, kw_only=True)
class BatchUpdate(_OfCollection[list[models.UpdateResult]]):
    """Make several changes of points, in their order."""

    method = "batch_update_points"
    update_operations: Sequence[models.UpdateOperation]


@dataclass(frozen=True, kw_only=True)
class UpdateAliases(Request[bool]):
    """Change aliases in one step."""

    method = "update_collection_aliases"
    change_aliases_operations: Sequence[models.AliasOperations]


def call(client: QdrantBase | AsyncQdrantClient, request: Request[Any]) -> Any:
    """Make a request of a client; an asynchronous one answers with an awaitable."""
    return getattr(client, request.method)(**{f.name: getattr(request, f.name) for f in fields(request)})
