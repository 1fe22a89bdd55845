"""The searches of a Qdrant collection for programs that run on asyncio."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any, Literal, TypeVar

from numpy.typing import ArrayLike
from qdrant_client import AsyncQdrantClient, models

from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.qdrant.connection import TIMEOUT
from dits_adapter.stores.qdrant.query import CANDIDATES, RequestPlan, Reranker, SearchedCollection, SearchRequest
from dits_adapter.stores.qdrant.retry import SEARCH_PATIENCE, TRANSIENT, RetryPolicy, translate_errors
from dits_adapter.stores.qdrant.schema import POOLED, Hit

T = TypeVar("T")


class AsyncQdrantStore:
    """A collection of video segments on a Qdrant server, to search with `await`.

    Many searches may be under way at once. Queries are vectors: a text encoder computes and does not wait, so that
    `DITSQueryEncoder.encode_query` belongs in a thread (`asyncio.to_thread`) where others must not wait for it.

    Args:
        location: a server's URL, with the API key in the environment variable QDRANT_API_KEY; or an
            `AsyncQdrantClient` of your own, which is used as it is and never closed.
        collection, space, vector, video_field, trust_foreign, tenant: as `QdrantStore`.

    Example:
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
        vector: str = POOLED,
        video_field: str | None = None,
        trust_foreign: bool = False,
        tenant: str | None = None,
    ) -> None:
        self._own = isinstance(location, str)
        if isinstance(location, AsyncQdrantClient):
            self.client = location
            self.location = "the Qdrant of the given client"
        elif isinstance(location, str) and re.match(r"https?://", location):
            self.location = location
            key = os.environ.get("QDRANT_API_KEY")
            self.client = AsyncQdrantClient(url=location, api_key=key, timeout=TIMEOUT, check_compatibility=False)
        else:
            raise InputError(
                f"location is {location!r}; it is a server's URL (http://…) or an AsyncQdrantClient. A folder is "
                "searched in this process: use QdrantStore, in a thread (asyncio.to_thread)."
            )
        self._searched = SearchedCollection(
            self.location,
            collection,
            space=space,
            vector=vector,
            video_field=video_field,
            trust_foreign=trust_foreign,
            tenant=tenant,
            takes_params=True,
        )

    async def __aenter__(self) -> AsyncQdrantStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the connection; a client that was passed in stays open."""
        if self._own:
            await self.client.close()

    async def open(self) -> EmbeddingSpace:
        """Check the collection, as `QdrantStore.open`."""
        return await self._run(self._searched.opening())

    async def search(
        self,
        query_vector: ArrayLike,
        *,
        limit: int = 10,
        per_video: int = 1,
        offset: int = 0,
        query_filter: models.Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        rerank: Literal["maxsim"] | Reranker | None = None,
        candidates: int = CANDIDATES,
        locate: bool = True,
    ) -> list[Hit]:
        """Find the segments nearest to a query, as `QdrantStore.search`."""
        ask = SearchRequest(limit, per_video, offset, query_filter, min_score, exact, rerank, candidates, locate)
        return await self._run(self._searched.searching_one(query_vector, ask))

    async def search_batch(
        self,
        query_vectors: ArrayLike,
        *,
        limit: int = 10,
        per_video: int = 1,
        offset: int = 0,
        query_filter: models.Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        rerank: Literal["maxsim"] | None = None,
        candidates: int = CANDIDATES,
        locate: bool = True,
    ) -> list[list[Hit]]:
        """Search for many queries in few requests, as `QdrantStore.search_batch`."""
        ask = SearchRequest(limit, per_video, offset, query_filter, min_score, exact, rerank, candidates, locate)
        return await self._run(self._searched.searching(query_vectors, ask))

    async def count(self) -> int:
        """Return how many segments the collection holds."""
        return await self._run(self._searched.counting())

    async def count_videos(self) -> int:
        """Return how many videos the collection holds whole, as `QdrantStore.count_videos`."""
        return await self._run(self._searched.counting_videos())

    async def _run(self, steps: RequestPlan[T]) -> T:
        """Make the requests of a search, as `Connection.run`."""
        with translate_errors(self.location):
            try:
                method, arguments = next(steps)
                while True:
                    try:
                        answer = await self.repeat_request(method, arguments)
                    except Exception as error:
                        method, arguments = steps.throw(error)
                    else:
                        method, arguments = steps.send(answer)
            except StopIteration as done:
                return done.value

    async def repeat_request(self, method: str, arguments: dict[str, Any]) -> Any:
        patience = RetryPolicy(self.location, SEARCH_PATIENCE)
        while True:
            try:
                return await getattr(self.client, method)(**arguments)
            except TRANSIENT as error:
                wait = patience.wait(error)
            await asyncio.sleep(wait)
