"""The searches of a Qdrant collection for programs that run on asyncio."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, TypeVar

from numpy.typing import ArrayLike
from qdrant_client import AsyncQdrantClient
from typing_extensions import Self, Unpack

from dits_adapter._reprs import short_repr
from dits_adapter._wording import without_password
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant._collection import QdrantCollection
from dits_adapter.stores.qdrant._connection import CLIENT, api_key, server_address
from dits_adapter.stores.qdrant._facts import CollectionFacts
from dits_adapter.stores.qdrant._lanes import searching, searching_like, searching_one
from dits_adapter.stores.qdrant._requests import Request, RequestPlan, call
from dits_adapter.stores.qdrant._retry import (
    Patience,
    RetryPolicy,
    limit_request_async,
    repeat_request_async,
    translate_errors,
)
from dits_adapter.stores.requests import Hit, SearchOptions, SearchRequest, from_keywords

__all__ = ["AsyncQdrantStore"]

T = TypeVar("T")


class AsyncQdrantStore(CollectionFacts):
    """A collection of video segments on a Qdrant server, to search with `await`.

    Many searches may be under way at once. Queries are vectors: a text encoder computes and does not wait, so that
    `DITSQueryEncoder.encode_query` belongs in a thread (`asyncio.to_thread`) where others must not wait for it.

    Args:
        location: a server's URL, with the API key in the environment variable QDRANT_API_KEY; or an
            `AsyncQdrantClient` of your own, which is used as it is and never closed.
        collection, space, layout, trust_foreign, tenant, patience: as `QdrantStore`.

    Examples:
        >>> import asyncio
        >>> async def search() -> int:
        ...     async with AsyncQdrantStore("http://localhost:6333", "videos") as store:
        ...         return len(await store.search([1.0, 0.0], limit=3))
        >>> asyncio.run(search())  # doctest: +SKIP
        3
    """

    def __init__(
        self,
        location: str | AsyncQdrantClient,
        collection: str = "videos",
        *,
        space: EmbeddingSpace | None = None,
        layout: PointLayout | None = None,
        trust_foreign: bool = False,
        tenant: str | None = None,
        patience: float | None = None,
    ) -> None:
        self._patience = Patience.of_search(patience)
        self._own = isinstance(location, str)
        if isinstance(location, AsyncQdrantClient):
            self.client = location
            self.location = "the Qdrant of the given client"
        elif isinstance(location, str) and re.match(r"https?://", location, re.IGNORECASE):
            self.location = server_address(location)
            self.client = AsyncQdrantClient(url=self.location, api_key=api_key(), **CLIENT)
            self.client.http.client.add_middleware(limit_request_async)
        else:
            raise InputError(
                f"location is {location!r}; it is a server's URL (http://…) or an AsyncQdrantClient. A folder is "
                "searched in this process: use QdrantStore, in a thread (asyncio.to_thread)."
            )
        self._collection = QdrantCollection(
            self.location,
            collection,
            space=space,
            layout=layout,
            trust_foreign=trust_foreign,
            tenant=tenant,
            takes_params=True,
            takes_formulas=True,
        )
        self.name = collection
        self.space = space
        self.tenant = tenant

    def __repr__(self) -> str:
        return short_repr(self, self.name, location=without_password(self.location), tenant=self.tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the connection; a client that was passed in stays open."""
        if self._own:
            await self.client.close()

    async def metadata(self) -> CollectionMetadata | None:
        """Return the description that the collection carries, as `QdrantStore.metadata`."""
        return await self._run(self._collection.reading_metadata(self.collection))

    async def open(self) -> EmbeddingSpace:
        """Check the collection, as `QdrantStore.open`."""
        return await self._run(self._collection.opening())

    async def search(
        self, query_vector: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the segments nearest to a query, as `VideoStore.search`."""
        request = from_keywords(SearchRequest, request, options)
        return await self._run(searching_one(self._collection, query_vector, request))

    async def search_like(
        self, segment: str | int, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the segments nearest to a stored one, as `VideoStore.search_like`."""
        request = from_keywords(SearchRequest, request, options)
        return await self._run(searching_like(self._collection, segment, request))

    async def search_batch(
        self, query_vectors: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Search for many queries in few requests, as `VideoStore.search_batch`."""
        request = from_keywords(SearchRequest, request, options)
        return await self._run(searching(self._collection, query_vectors, request))

    async def count(self) -> int:
        """Return the number of segments in the collection."""
        return await self._run(self._collection.counting())

    async def count_videos(self) -> int:
        """Return the number of whole videos, as `VideoStore.count_videos`."""
        return await self._run(self._collection.counting_videos())

    async def _run(self, plan: RequestPlan[T]) -> T:
        """Make the requests of a plan, as `Connection.run`."""
        with translate_errors(self.location):
            try:
                request = next(plan)
                while True:
                    try:
                        answer = await self._repeat(request)
                    except Exception as error:
                        request = plan.throw(error)
                    else:
                        request = plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result

    async def _repeat(self, request: Request[Any]) -> Any:
        policy = RetryPolicy(self.location, self._patience)
        return await repeat_request_async(partial(call, self.client, request), policy)
