"""Routes of the JSON API: what is like a moment or a picture, and the moments of a video."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request

from dits_adapter.errors import InputError
from dits_adapter.serve._answers import Ranking, Timeline
from dits_adapter.serve._moments import search_image, search_like, segment_query, timeline
from dits_adapter.serve._parameters import Limit, PerVideo, Steps, Strength, read_filter, require_utf8
from dits_adapter.serve._reload import Reloader
from dits_adapter.stores.requests import SearchRequest, VideoFilter

__all__ = ["moment_routes"]

_IMAGES = 2
"""Pictures that are decoded at a time, in up to 800 MB each; the others wait, as many as `CheckWrites` admits."""


def moment_routes(serving: Reloader) -> APIRouter:
    """Make the routes of searches by a moment or a picture, and of the timelines of videos.

    Args:
        serving: keeper of the searcher in use.
    """
    router = APIRouter(prefix="/api")
    limiter: list[CapacityLimiter] = []  # one, which is made where an event loop runs

    @router.get("/similar")
    def similar(
        segment: Annotated[str, Query(max_length=1024, description="`id` of a result.")],
        among: Annotated[VideoFilter, Depends(read_filter)],
        limit: Limit = 10,
        per_video: PerVideo = 1,
    ) -> Ranking:
        """Search what is like a stored segment, which is left out: by its own vector, without the adapter."""
        request = SearchRequest(limit=limit, per_video=per_video, filter=among or None)
        return search_like(serving.searcher, segment, request)

    @router.post(
        "/image",
        openapi_extra={
            "requestBody": {
                "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
                "required": True,
            }
        },
    )
    async def image(
        request: Request,
        among: Annotated[VideoFilter, Depends(read_filter)],
        limit: Limit = 10,
        per_video: PerVideo = 1,
    ) -> Ranking:
        """Search what is like a picture, without the adapter, which moves texts alone.

        The body is the file: JPEG, PNG, WebP, BMP or GIF, at most 8 MB and 50 million pixels, one picture.
        503 while too many pictures are sent.
        """
        if not limiter:
            limiter.append(CapacityLimiter(_IMAGES))
        wanted = SearchRequest(limit=limit, per_video=per_video, filter=among or None)
        content = await request.body()
        return await to_thread.run_sync(search_image, serving.searcher, content, wanted, limiter=limiter[0])

    @router.get("/videos/{video_id}/timeline")
    def moments(
        request: Request,
        video_id: str,
        query: Annotated[str | None, Query(description="What happens in the video.")] = None,
        segment: Annotated[
            str | None, Query(max_length=1024, description="In the place of a text: `id` of a result.")
        ] = None,
        strength: Strength = None,
        steps: Steps = None,
    ) -> Timeline:
        """Compare every moment of one video with a text, plain and adapted, or with a stored segment."""
        require_utf8(request)
        searcher = serving.searcher
        if (query is None) == (segment is None):
            raise InputError("give a query or a segment, one of them.")
        if query is not None:
            queries = searcher.weighted(query, strength=strength, steps=steps)
        else:
            queries = {"similar": segment_query(searcher, segment or "")}
        return timeline(searcher, video_id, queries)

    return router
