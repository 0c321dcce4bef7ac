"""What the gateway counts, in an injected registry."""

from __future__ import annotations

import importlib.metadata

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one gateway. Label values come from the catalog and from enums, never from clients."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "atelier_requests",
            "Requests answered, by canonical code.",
            ["method", "model", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "atelier_request_seconds",
            "Time from a request's arrival at the service to its answer.",
            ["method", "model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "atelier_requests_in_flight", "Requests being worked on.", ["method"], registry=registry
        )
        self.queue_seconds = Histogram(
            "atelier_queue_seconds",
            "Time that rows wait for an instance, by call of a request.",
            ["graph"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.call_seconds = Histogram(
            "atelier_call_seconds",
            "Time that a batch takes in the backend.",
            ["graph"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "atelier_batch_rows",
            "Rows of requests in a batch, padding left out.",
            ["graph"],
            buckets=_ROWS,
            registry=registry,
        )
        self.rows = Counter("atelier_rows", "Rows computed.", ["graph"], registry=registry)
        self.rows_in_vain = Counter(
            "atelier_rows_in_vain",
            "Rows computed for requests that had gone, or went before their end.",
            ["graph"],
            registry=registry,
        )
        self.call_failures = Counter(
            "atelier_call_failures", "Batches that the backend failed.", ["graph"], registry=registry
        )
        self.rows_admitted = Gauge(
            "atelier_rows_admitted", "Rows of the requests that are under way.", registry=registry
        )
        self.bytes_admitted = Gauge(
            "atelier_bytes_admitted",
            "Bytes of tensors of the requests that are under way.",
            registry=registry,
        )
        self.rows_pending = Gauge(
            "atelier_rows_pending", "Rows that wait for an instance.", registry=registry
        )
        self.refused = Counter(
            "atelier_requests_refused",
            "Requests refused because the gateway is full, or could not be in time.",
            registry=registry,
        )
        self.shared = Counter(
            "atelier_requests_shared",
            "Requests that joined an identical one under way.",
            ["model"],
            registry=registry,
        )
        self.cache_hits = Counter(
            "atelier_cache_hits", "Requests answered from the cache.", ["model"], registry=registry
        )
        self.cache_misses = Counter(
            "atelier_cache_misses",
            "Requests that the cache might have answered but could not.",
            ["model"],
            registry=registry,
        )
        self.cache_bytes = Gauge("atelier_cache_bytes", "Bytes of results in the cache.", registry=registry)
        self.loads = Counter(
            "atelier_loads",
            "Versions of graphs that were loaded or refused; a refusal counts again when its reason changes.",
            ["graph", "outcome"],
            registry=registry,
        )
        self.refused_places = Gauge(
            "atelier_refused",
            "1 for each model, graph or graph/version of the repository that is refused; the log says why.",
            ["name"],
            registry=registry,
        )
        self.switches = Counter(
            "atelier_version_switches",
            "Times that requests which name no version went over to another one.",
            ["model"],
            registry=registry,
        )
        self.repository_reachable = Gauge(
            "atelier_repository_reachable",
            "Whether the last look at the repository found it; what is loaded is served all the same.",
            registry=registry,
        )
        self._of_models: tuple[MetricWrapperBase, ...] = (
            self.requests,
            self.request_seconds,
            self.shared,
            self.cache_hits,
            self.cache_misses,
            self.switches,
        )
        self._of_graphs: tuple[MetricWrapperBase, ...] = (
            self.queue_seconds,
            self.call_seconds,
            self.batch_rows,
            self.rows,
            self.rows_in_vain,
            self.call_failures,
            self.loads,
        )
        build = Info("atelier_build", "What is running.", registry=registry)
        build.info({"version": importlib.metadata.version("atelier")})

    def forget_model(self, model: str) -> None:
        """Drops the series of a model that is gone."""
        for metric in self._of_models:
            metric.remove_by_labels({"model": model})

    def forget_graph(self, graph: str) -> None:
        """Drops the series of a graph that is gone."""
        for metric in self._of_graphs:
            metric.remove_by_labels({"graph": graph})
