"""The web application of the search page: the page, a JSON API with its OpenAPI description, and the videos.

The page loads nothing from other hosts. The only files that can be read are those that the collection records as
ingested, as long as they have not changed since. The API changes nothing but one file, where feedback is taken.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from dits_adapter._version import VERSION
from dits_adapter.errors import (
    DITSError,
    InputError,
    MissingCollectionError,
    MissingExtraError,
    SpaceMismatchError,
    StoreError,
    VideoError,
)
from dits_adapter.serve._answers import About, SideBySide
from dits_adapter.serve._blind import BlindComparer
from dits_adapter.serve._feedback import Choice, FeedbackRecorder, Judged
from dits_adapter.serve._judging import ForgottenSearchError
from dits_adapter.serve._overview import Overview
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import INGESTED, CompareOptions, Searcher
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest, VideoFilter

try:
    from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from dits_adapter.encoders._images import IMAGE_BYTES
    from dits_adapter.serve._collection_routes import collection_routes
    from dits_adapter.serve._compare_routes import compare_routes
    from dits_adapter.serve._frames import FileVersion, FrameDecoder
    from dits_adapter.serve._health import Health
    from dits_adapter.serve._middleware import PAGES, CheckWrites, RequireToken, SecureHeaders, check_token
    from dits_adapter.serve._moment_routes import moment_routes
    from dits_adapter.serve._operations import add_operations
    from dits_adapter.serve._page_metrics import PageMetrics
    from dits_adapter.serve._parameters import Limit, PerVideo, Steps, Strength, read_filter
except ImportError:
    raise MissingExtraError("fastapi", "serve", "the search page") from None

__all__ = ["LOOPBACK", "STATIC", "create_app"]

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself."""


def create_app(
    searcher: Searcher,
    *,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    feedback: FeedbackRecorder | None = None,
) -> FastAPI:
    """Make the ASGI application.

    Args:
        searcher: the collection and the adapter, loaded. An adapter in a folder that is replaced while the
            application runs is taken up (`Reloader`).
        token: required of every request, in `Authorization: Bearer`, in `?token=` or in the cookie that the latter
            sets; None admits everybody who reaches the port.
        hosts: host names that requests without a token may use, so that no web site can reach the page through
            a browser on this machine under a name of its own (DNS rebinding).
        feedback: recorder of people's judgements; None to take none.

    Raises:
        InputError: a token that no HTTP header can carry.
    """
    check_token(token)
    frames = FrameDecoder()
    serving = Reloader(searcher)
    metrics = PageMetrics(serving)
    overview = Overview(serving, None if feedback is None else feedback.path)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with serving.watching():
            yield
        frames.close()
        overview.close()

    app = FastAPI(
        lifespan=lifespan,
        title="dits_adapter search",
        version=VERSION,
        summary="Search videos by text, with plain CLIP and across the modality gap.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(CheckWrites, pictures={"/api/image": IMAGE_BYTES})
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    else:
        app.add_middleware(RequireToken, token=token, form=STATIC / "token.html")
    app.add_middleware(SecureHeaders)
    add_operations(app, Health(lambda: serving.searcher.store), metrics)

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        metrics.errors.labels(type(error).__name__).inc()
        return _error_response(error)

    app.add_exception_handler(DITSError, refuse)
    app.add_exception_handler(RequestValidationError, refuse)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    for place, file in PAGES.items():
        app.add_api_route(place, _page(STATIC / file), methods=["GET", "HEAD"], include_in_schema=False)

    @app.get("/api/about")
    def about() -> About:
        """Describe the collection that is searched and the adapter."""
        described = serving.searcher.about()
        return described.model_copy(update={"feedback": feedback and feedback.notice})

    @app.get("/api/search")
    def search(
        query: Annotated[str, Query(description="What happens in the video.")],
        among: Annotated[VideoFilter, Depends(read_filter)],
        strength: Strength = None,
        steps: Steps = None,
        limit: Limit = 10,
        per_video: PerVideo = 1,
        min_probability: Annotated[
            float | None,
            Query(gt=0, lt=1, description="Of adapted results to be the right video; needs a calibrated adapter."),
        ] = None,
        lanes: Annotated[
            list[Literal["seen", "said"]],
            Query(
                max_length=2,
                description="What is searched: what is seen, what is said (if the collection has texts), or both.",
            ),
        ] = ["seen"],  # noqa: B006 - FastAPI copies it
    ) -> SideBySide:
        """Search with plain CLIP and with the adapter."""
        options = CompareOptions(
            strength=strength,
            steps=steps,
            limit=limit,
            per_video=per_video,
            filter=among,
            min_probability=min_probability,
            lanes=tuple(lanes),
        )
        searcher = serving.searcher
        answer = searcher.compare(query, options)
        metrics.searched(answer)
        return answer if feedback is None else feedback.remember(answer, options, searcher)

    app.include_router(moment_routes(serving))

    if feedback is not None:

        @app.post("/api/feedback")
        def judge(choice: Choice) -> Judged:
            """Write down which result of a search is right, or that none is; the last judgement counts."""
            return feedback.judge(choice)

        @app.delete("/api/feedback/{search}")
        def take_back(search: str) -> Judged:
            """Withdraw the judgement of a search."""
            return feedback.take_back(search)

        app.include_router(compare_routes(BlindComparer(feedback), serving))

    app.include_router(collection_routes(overview))

    @app.get("/api/videos/{video_id}", response_class=FileResponse, responses=_content("video/*"))
    @app.head("/api/videos/{video_id}", include_in_schema=False)
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

    @app.get("/api/videos/{video_id}/frame", response_class=Response, responses=_content("image/jpeg"))
    async def frame(
        video_id: str,
        at: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds from the first frame.")] = 0.0,
    ) -> Response:
        """Decode the frame on screen at a moment, as a small JPEG; 503 while too many are asked for."""
        content = await frames.jpeg(lambda: _ingested_file(serving.searcher.store, video_id)[0], at)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    return app


def _page(file: Path) -> Callable[[], FileResponse]:
    def page() -> FileResponse:
        return FileResponse(file)

    return page


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
        status = os.stat(payload["path"])
    except OSError as error:
        raise HTTPException(404, f"{payload['path']} cannot be read ({error.strerror}).") from None
    unchanged = (status.st_size, status.st_mtime_ns) == (payload["size"], payload[INGESTED])
    if not (unchanged and stat.S_ISREG(status.st_mode)):
        raise HTTPException(410, f"{payload['path']} was changed since it was ingested. Ingest it again.")
    return FileVersion(str(payload["path"]), status.st_size, status.st_mtime_ns), status


def _error_response(error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)
    status = {
        InputError: 400,
        MissingCollectionError: 404,
        ForgottenSearchError: 410,
        SpaceMismatchError: 400,
        VideoError: 422,
        StoreError: 503,
    }.get(type(error), 500)
    return JSONResponse({"detail": str(error)}, status)
