"""Making of a Qdrant collection: its vectors, the indexes of its payload, and that of its vectors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from dits_adapter._progress import progress_bar
from dits_adapter.errors import StoreError
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant._connection import Connection
from dits_adapter.stores.qdrant._requests import (
    CreateCollection,
    CreatePayloadIndex,
    DeleteCollection,
    GetCollection,
    RequestPlan,
    UpdateCollection,
)
from dits_adapter.stores.qdrant._schema import FAILURE, FRAMES, METADATA_KEY, POOLED, TENANT, WORDS
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.text_lane import SAID

__all__ = [
    "INDEXING_THRESHOLD",
    "index_payload",
    "index_put_off",
    "make_collection",
    "refuse_old_server",
    "require_kept_as",
    "resume_indexing",
    "warn_of_shared_idf",
]

INDEXING_THRESHOLD = 10_000
"""Kilobytes of vectors from which Qdrant indexes a part of its storage: its default, for after a bulk load."""


def make_collection(
    connection: Connection, collection: str, metadata: CollectionMetadata, options: CollectionOptions | None
) -> bool:
    """Create a collection; False if it is there, made by another process or by a request that broke off."""
    width, options = metadata.space.video.width, options or CollectionOptions()
    request = CreateCollection(
        collection_name=collection,
        vectors_config={
            POOLED: options.pooled(width, tenants=metadata.tenants),
            FRAMES: options.frames(width),
        },
        sparse_vectors_config={SAID: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        **options.collection(),
        metadata={METADATA_KEY: metadata.model_dump(mode="json")},
    )
    return connection.run(_creating(request))


def refuse_old_server(connection: Connection, collection: str) -> NoReturn:
    """Delete a collection whose metadata the server did not keep, and say so.

    Raises:
        StoreError: always.
    """
    connection.send(DeleteCollection(collection_name=collection))
    raise StoreError(
        f"{connection.location} runs Qdrant {connection.client.info().version}, which keeps no collection "
        "metadata, where the embedding space is written down. Use Qdrant 1.16 or newer."
    )


def warn_of_shared_idf(connection: Connection, collection: str) -> None:
    """Warn that a server weighs the words of one tenant by the texts of all, which Qdrant before 1.19 does."""
    if not connection.remote:
        return
    with connection.translate_errors():
        version = str(connection.client.info().version)
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    if len(numbers) == 2 and numbers < [1, 19]:
        warnings.warn(
            f"{connection.location} runs Qdrant {version}, which weighs words by the texts of all tenants of "
            f"{collection!r}: scores of what is said hint at how common a word is with the others. Qdrant 1.19 or "
            "newer does not, nor does a collection for each tenant.",
            stacklevel=4,
        )


def require_kept_as(options: CollectionOptions, info: models.CollectionInfo, collection: str) -> None:
    """Refuse options for a collection that is there and is kept otherwise.

    Raises:
        StoreError: naming the options that differ.
    """
    params = info.config.params
    assert isinstance(params.vectors, dict)
    existing = CollectionOptions.of(params, params.vectors[POOLED])
    differences = [
        f"{name}={getattr(existing, name)} instead of {getattr(options, name)}"
        for name in sorted(options.model_fields_set)
        if getattr(existing, name) != getattr(options, name)
    ]
    if differences:
        raise StoreError(
            f"the collection {collection!r} is there already, with {', '.join(differences)}. Options are "
            "for a new collection: leave them out, or ingest into another one."
        )


def index_payload(connection: Connection, collection: str, *, tenants: bool) -> None:
    """Create the missing payload indexes of ingestion and filters, that of the words first.

    Where others are there and that of the words is not, an earlier version has stored videos without words; with
    the index they would be searched as if they had none.
    """
    fields: dict[str, Any] = {WORDS: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)}
    fields["video_id"] = models.UuidIndexParams(type=models.UuidIndexType.UUID)
    fields["path"] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
    fields[FAILURE] = fields["path"]
    fields["duration"] = models.FloatIndexParams(type=models.FloatIndexType.FLOAT)
    fields["segments"] = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER)
    if tenants:
        fields[TENANT] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    indexed = _info(connection, collection).payload_schema
    if indexed and WORDS not in indexed:
        del fields[WORDS]
    with warnings.catch_warnings():  # memory warns that it has no use for indexes
        warnings.simplefilter("ignore")
        for name, params in fields.items():
            if name not in indexed:
                connection.send(
                    CreatePayloadIndex(collection_name=collection, field_name=name, field_schema=params)
                )


@contextmanager
def index_put_off(connection: Connection, collection: str, *, progress: bool) -> Iterator[None]:
    """Put off a server's index of vectors, and wait for it at the end; see `QdrantStore.bulk_load`."""
    usual = _indexing_threshold(connection, collection) or INDEXING_THRESHOLD
    _set_indexing_threshold(connection, collection, 0)
    try:
        yield
    except BaseException:
        with suppress(StoreError):  # the server may be what failed; the next run does it then
            _set_indexing_threshold(connection, collection, usual)
        raise
    _set_indexing_threshold(connection, collection, usual)
    with progress_bar(desc=f"{collection}: index", unit="vector", progress=progress) as bar:
        while True:
            info = _info(connection, collection)
            bar.total, bar.n = info.points_count, min(info.indexed_vectors_count or 0, info.points_count or 0)
            bar.refresh()
            if info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.RED):
                return
            time.sleep(0.5)


def resume_indexing(connection: Connection, collection: str) -> None:
    """Restore a server's indexing of vectors, where a bulk load was killed."""
    if _indexing_threshold(connection, collection) == 0:
        _set_indexing_threshold(connection, collection, INDEXING_THRESHOLD)


def _indexing_threshold(connection: Connection, collection: str) -> int | None:
    return _info(connection, collection).config.optimizer_config.indexing_threshold


def _set_indexing_threshold(connection: Connection, collection: str, kilobytes: int) -> None:
    diff = models.OptimizersConfigDiff(indexing_threshold=kilobytes)
    connection.send(UpdateCollection(collection_name=collection, optimizers_config=diff))


def _info(connection: Connection, collection: str) -> models.CollectionInfo:
    return connection.send(GetCollection(collection_name=collection))


def _creating(request: CreateCollection) -> RequestPlan[bool]:
    """Create a collection; the result is False if it is there already.

    It may be another process's, or our own, by a request that broke off after the server had obeyed.
    """
    try:
        return (yield from request)
    except (UnexpectedResponse, grpc.RpcError) as error:
        if not _conflicts(error):
            raise
        return False


def _conflicts(error: UnexpectedResponse | grpc.RpcError) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 409
    return bool(error.code() == grpc.StatusCode.ALREADY_EXISTS)
