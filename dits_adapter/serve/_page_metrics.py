"""Measurements of the search page beside those of every server: stages of a search, and the searcher in use."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dits_adapter.serve._answers import SideBySide
from dits_adapter.serve._metrics import SECONDS, Metrics
from dits_adapter.serve._reload import Reloader

__all__ = ["PageMetrics"]


class PageMetrics(Metrics):
    """Measurements of the search page.

    Args:
        serving: keeper of the searcher in use, which is asked when the measurements are read.
    """

    def __init__(self, serving: Reloader) -> None:
        super().__init__()
        self._stages = Histogram(
            "dits_adapter_search_stage_seconds",
            "Seconds that a search spends in each of its stages.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_State(serving))

    def searched(self, answer: SideBySide) -> None:
        """Count the stages of a search."""
        for stage, seconds in answer.stages.items():
            self._stages.labels(stage).observe(seconds)


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
