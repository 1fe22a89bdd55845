"""Routes for whoever operates a server: is it alive, does it work, and its measurements."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dits_adapter.serve._health import Health, HealthAnswer
from dits_adapter.serve._metrics import MeasureRequests, Metrics

__all__ = ["add_operations"]


def add_operations(app: Starlette, health: Health, metrics: Metrics) -> None:
    """Add `/livez`, `/healthz` and `/metrics` to an application, and the middleware that measures its requests.

    Add all other middleware before, so that what it refuses is measured, too.
    """

    async def live(_: Request) -> JSONResponse:
        return _answer(HealthAnswer(status="ok"))

    async def healthy(request: Request) -> JSONResponse:
        answer = await health.check()
        # The reason names the store: it is for those who may search it.
        admitted = getattr(request.state, "admitted", True)
        return _answer(answer if admitted else HealthAnswer(status=answer.status))

    async def measurements(_: Request) -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    # FastAPI tells the middleware of routes that it added itself alone. HEAD is how many watchers ask.
    add = getattr(app, "add_api_route", app.add_route)
    for path, endpoint in {"/livez": live, "/healthz": healthy, "/metrics": measurements}.items():
        add(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_middleware(MeasureRequests, metrics=metrics)


def _answer(answer: HealthAnswer) -> JSONResponse:
    return JSONResponse(answer.model_dump(exclude_none=True), 200 if answer.status == "ok" else 503)
