"""Measurements of the search page for Prometheus; no label holds a query, a token or another word of a client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dits_adapter.serve._answers import SideBySide
from dits_adapter.serve._reload import Reloader

__all__ = ["MeasureRequests", "Metrics"]

_logger = logging.getLogger(__name__)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Measurements of one application, in a registry of their own.

    Args:
        serving: keeper of the searcher in use, which is asked when the measurements are read.

    Attributes:
        in_flight: requests that are being answered.
        requests: seconds of requests, by route and status.
        errors: requests that failed, by the class of the error.
    """

    def __init__(self, serving: Reloader) -> None:
        self._registry = CollectorRegistry()
        self.in_flight = Gauge(
            "dits_adapter_requests_in_flight", "Requests that are being answered.", registry=self._registry
        )
        self.requests = Histogram(
            "dits_adapter_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.errors = Counter(
            "dits_adapter_errors", "Requests that failed, by kind.", ["kind"], registry=self._registry
        )
        self._stages = Histogram(
            "dits_adapter_search_stage_seconds",
            "Seconds that a search spends in each of its stages.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_State(serving))
        ProcessCollector(registry=self._registry)

    def searched(self, answer: SideBySide) -> None:
        """Count the stages of a search."""
        for stage, seconds in answer.stages.items():
            self._stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """Return the measurements in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """Collector of what the searcher in use counts itself; its counters begin again with each adapter."""

    def __init__(self, serving: Reloader) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        searcher = self._serving.searcher
        queue = GaugeMetricFamily(
            "dits_adapter_embedding_queue", "Texts that wait for the text encoder.", value=searcher.waiting_texts
        )
        yield queue
        cache = CounterMetricFamily(
            "dits_adapter_text_cache", "Texts looked up in the cache of embeddings.", labels=["result"]
        )
        hits, misses = searcher.cached_texts
        cache.add_metric(["hit"], hits)
        cache.add_metric(["miss"], misses)
        yield cache
        artifact = searcher.encoder.artifact
        facts = {"digest": artifact.digest, "kind": artifact.adapter.kind, "space": str(searcher.encoder.space)}
        yield InfoMetricFamily("dits_adapter_adapter", "The adapter in use.", value=facts)
        reloads = CounterMetricFamily(
            "dits_adapter_adapter_reloads", "New adapters in the folder that is watched.", labels=["outcome"]
        )
        for outcome, count in self._serving.outcomes.items():
            reloads.add_metric([outcome], count)
        yield reloads


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
                status = message["status"]
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
