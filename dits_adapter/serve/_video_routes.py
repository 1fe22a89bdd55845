"""Routes of the videos: their files, and single frames of them."""

from __future__ import annotations

import mimetypes
import os
import stat
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import FileResponse

from dits_adapter.serve._frames import FileVersion, FrameDecoder
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import INGESTED
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest

__all__ = ["video_routes"]


def video_routes(serving: Reloader, frames: FrameDecoder) -> APIRouter:
    """Make the routes under /api/videos.

    Args:
        serving: keeper of the searcher in use.
        frames: decoder of single frames.
    """
    router = APIRouter(prefix="/api/videos/{video_id}")

    @router.get("", response_class=FileResponse, responses=_content("video/*"))
    @router.head("", include_in_schema=False)
    def video(video_id: str) -> FileResponse:
        """Send an ingested file, or the range of it that is asked for."""
        file, status = _ingested_file(serving.searcher.store, video_id)
        media_type = mimetypes.guess_type(file.path)[0] or ""
        return FileResponse(
            file.path,
            media_type=media_type if media_type.startswith("video/") else "application/octet-stream",
            stat_result=status,
            headers={"cache-control": "private, no-cache"},  # cached, but validated
        )

    @router.get("/frame", response_class=Response, responses=_content("image/jpeg"))
    async def frame(
        video_id: str,
        at: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds from the first frame.")] = 0.0,
    ) -> Response:
        """Decode the frame on screen at a moment, as a small JPEG; 503 while too many are asked for."""
        content = await frames.jpeg(lambda: _ingested_file(serving.searcher.store, video_id)[0], at)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    return router


def _content(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def _ingested_file(store: VideoStore, video_id: str) -> tuple[FileVersion, os.stat_result]:
    """Return the file of an ingested video, if it still is the file that was ingested.

    Raises:
        HTTPException: 404 if the collection does not know the video or its file, 410 if the file was changed.
    """
    segment = next(iter(store.read(ReadRequest(field="video_id", values=[video_id], limit=1))), None)
    payload = {} if segment is None else segment.payload
    if not {"path", "size", INGESTED} <= payload.keys():
        raise HTTPException(404, "no ingested video has this id.")
    try:
        status = os.stat(str(payload["path"]))
    except OSError as error:
        raise HTTPException(404, f"{payload['path']} cannot be read ({error.strerror}).") from None
    except ValueError:  # somebody else has written it
        raise HTTPException(404, "the path of this video is none that a file can have.") from None
    unchanged = (status.st_size, status.st_mtime_ns) == (payload["size"], payload[INGESTED])
    if not (unchanged and stat.S_ISREG(status.st_mode)):
        raise HTTPException(410, f"{payload['path']} was changed since it was ingested. Ingest it again.")
    return FileVersion(str(payload["path"]), status.st_size, status.st_mtime_ns), status
