"""Measurements of a server for Prometheus; no label holds a query, a token or another word of a client."""

from __future__ import annotations

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SECONDS", "MeasureRequests", "Metrics"]

_logger = logging.getLogger(__name__)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the buckets of histograms of seconds."""


class Metrics:
    """Measurements of one application, in a registry of their own.

    Attributes:
        registry: the registry, to which subclasses add.
        in_flight: requests that are being answered.
        requests: seconds of requests, by route and status.
        errors: requests that failed, by the class of the error.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "dits_adapter_requests_in_flight", "Requests that are being answered.", registry=self.registry
        )
        self.requests = Histogram(
            "dits_adapter_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["route", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.errors = Counter(
            "dits_adapter_errors", "Requests that failed, by kind.", ["kind"], registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return the measurements in Prometheus' text format."""
        return generate_latest(self.registry)


class MeasureRequests:
    """Middleware that measures and logs every request, those that are refused too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and count its answers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])  # before Python 3.11 an HTTPStatus is written as its name
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_and_note)
            except Exception as error:
                self.metrics.errors.labels(type(error).__name__).inc()
                raise
            finally:
                # The route as it is declared: addresses have no bound, and a series is kept for each.
                route = getattr(scope.get("route"), "path", "other")
                seconds = time.perf_counter() - started
                self.metrics.requests.labels(route, str(status)).observe(seconds)
                fields = {
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 6),
                }
                _logger.info("%s %s %d", scope["method"], route, status, extra={"fields": fields})
