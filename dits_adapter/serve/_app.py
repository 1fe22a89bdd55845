"""The web application of the search page: the page, a JSON API with its OpenAPI description, and the videos.

The page loads nothing from other hosts. The only files that can be read are those that the collection records as
ingested, as long as they have not changed since. The API changes nothing but one file, where feedback is taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

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
from dits_adapter.serve._blind import BlindComparer
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._judging import ForgottenSearchError
from dits_adapter.serve._overview import Overview
from dits_adapter.serve._pages import PAGES, STATIC
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import Searcher

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from dits_adapter.encoders._images import IMAGE_BYTES
    from dits_adapter.serve._collection_routes import collection_routes
    from dits_adapter.serve._compare_routes import compare_routes
    from dits_adapter.serve._frames import FrameDecoder
    from dits_adapter.serve._health import Health
    from dits_adapter.serve._middleware import CheckWrites, RequireToken, SecureHeaders, check_token
    from dits_adapter.serve._moment_routes import moment_routes
    from dits_adapter.serve._operations import add_operations
    from dits_adapter.serve._page_metrics import PageMetrics
    from dits_adapter.serve._search_routes import feedback_routes, search_routes
    from dits_adapter.serve._video_routes import video_routes
except ImportError:
    raise MissingExtraError("fastapi", "serve", "the search page") from None

__all__ = ["LOOPBACK", "create_app"]

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
    _answer_errors(app, metrics)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for path, page in PAGES.items():
        app.add_api_route(path, _always(page.html()), methods=["GET", "HEAD"], include_in_schema=False)
    app.include_router(search_routes(serving, metrics, feedback))
    app.include_router(moment_routes(serving))
    if feedback is not None:
        app.include_router(feedback_routes(feedback))
        app.include_router(compare_routes(BlindComparer(feedback), serving))
    app.include_router(collection_routes(overview))
    app.include_router(video_routes(serving, frames))
    return app


def _always(content: str) -> Callable[[], HTMLResponse]:
    def page() -> HTMLResponse:
        return HTMLResponse(content)

    return page


def _answer_errors(app: FastAPI, metrics: PageMetrics) -> None:
    """Answer errors in words, and count them."""

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        metrics.errors.labels(type(error).__name__).inc()
        return _error_response(error)

    app.add_exception_handler(DITSError, refuse)
    app.add_exception_handler(RequestValidationError, refuse)


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
