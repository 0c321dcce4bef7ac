"""What the gateway counts, in an injected registry.

Label values come from the catalog and from enums, never from clients: a request for a model that is not there
counts under `unknown`. `docs/metrics.md` is generated from what stands here.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from serving.catalog import Catalog

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SHORT_SECONDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_GRAPH = ["graph"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphMetrics:
    """The series of one graph, looked up once rather than at every call."""

    queue_seconds: Histogram
    """See `Metrics`; so are the others."""
    call_seconds: Histogram
    """Of calls that succeeded."""
    batch_rows: Histogram
    """Without padding."""
    rows: Counter
    """Without padding."""
    rows_padded: Counter
    """Padding alone."""
    steps: Counter
    """Calls of requests."""
    rows_in_vain: Counter
    """Of requests that had gone."""
    call_failures: Counter
    """Calls that failed."""


class Metrics:
    """Metrics of one gateway. Those of a model, graph or version go when it goes: see `keep`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._graphs: dict[str, GraphMetrics] = {}
        self._gone_graphs: set[str] = set()
        self._versions: frozenset[tuple[str, str]] | None = None
        self.requests = Counter(
            "atelier_requests",
            "Requests answered, by canonical code. Task and version are empty where a request was refused "
            "before they were known.",
            ["method", "task", "model", "version", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "atelier_request_seconds",
            "Time from a request's arrival at the service to its answer, of those that succeeded.",
            ["method", "model", "version"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "atelier_requests_in_flight", "Requests being worked on.", ["method"], registry=registry
        )
        self.refused = Counter(
            "atelier_requests_refused",
            "Requests refused at the door: rows or bytes (full), late (the backlog is too long for the "
            "deadline), hopeless (an idle machine would be too slow), too_large (never fits).",
            ["reason"],
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
        self.encode_seconds = Histogram(
            "atelier_encode_seconds",
            "Time that the pictures of an answer take to encode, waiting for a thread included.",
            ["format"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "atelier_queue_seconds",
            "Time that rows wait for an instance, by call of a request.",
            _GRAPH,
            buckets=_SECONDS,
            registry=registry,
        )
        self.call_seconds = Histogram(
            "atelier_call_seconds",
            "Time that a batch takes in the backend.",
            _GRAPH,
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "atelier_batch_rows",
            "Rows of requests in a batch, padding left out.",
            _GRAPH,
            buckets=_ROWS,
            registry=registry,
        )
        self.rows = Counter("atelier_rows", "Rows computed, padding left out.", _GRAPH, registry=registry)
        self.rows_padded = Counter(
            "atelier_rows_padded",
            "Rows computed to fill a batch up to the least size of the graph.",
            _GRAPH,
            registry=registry,
        )
        self.steps = Counter(
            "atelier_steps",
            "Calls that requests made: each step of a sampler, each pass of a decoder or encoder.",
            _GRAPH,
            registry=registry,
        )
        self.rows_in_vain = Counter(
            "atelier_rows_in_vain",
            "Rows computed for requests that had gone, or went before their end.",
            _GRAPH,
            registry=registry,
        )
        self.call_failures = Counter(
            "atelier_call_failures", "Batches that the backend failed.", _GRAPH, registry=registry
        )
        self.rows_admitted = Gauge(
            "atelier_rows_admitted", "Rows of the requests that are under way.", registry=registry
        )
        self.rows_limit = Gauge(
            "atelier_rows_limit", "Rows that may be under way at a time.", registry=registry
        )
        self.bytes_admitted = Gauge(
            "atelier_bytes_admitted",
            "Bytes of tensors of the requests that are under way.",
            registry=registry,
        )
        self.bytes_limit = Gauge(
            "atelier_bytes_limit", "Bytes of tensors that may be under way at a time.", registry=registry
        )
        self.rows_pending = Gauge(
            "atelier_rows_pending", "Rows that wait for an instance.", registry=registry
        )
        self.graph_loads = Counter(
            "atelier_graph_loads", "Times that a graph was loaded.", ["graph", "version"], registry=registry
        )
        self.graph_load_failures = Counter(
            "atelier_graph_load_failures",
            "Times that a graph did not load.",
            ["graph", "version"],
            registry=registry,
        )
        self.graph_load_seconds = Gauge(
            "atelier_graph_load_seconds",
            "Time that the last load of a graph took.",
            ["graph", "version"],
            registry=registry,
        )
        self.event_loop_lag_seconds = Histogram(
            "atelier_event_loop_lag_seconds",
            "How late the event loop wakes a task that sleeps: what blocks it delays everybody.",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        build = Info("atelier_build", "What is running.", registry=registry)
        version = importlib.metadata.version("atelier")
        build.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=registry)

    def graph(self, graph: str) -> GraphMetrics:
        """The series of a graph."""
        known = self._graphs.get(graph)
        if known is None:
            known = self._graphs[graph] = GraphMetrics(
                queue_seconds=self.queue_seconds.labels(graph),
                call_seconds=self.call_seconds.labels(graph),
                batch_rows=self.batch_rows.labels(graph),
                rows=self.rows.labels(graph),
                rows_padded=self.rows_padded.labels(graph),
                steps=self.steps.labels(graph),
                rows_in_vain=self.rows_in_vain.labels(graph),
                call_failures=self.call_failures.labels(graph),
            )
        return known

    def answered(
        self,
        *,
        method: str,
        task: str,
        model: str,
        version: str,
        code: str,
        seconds: float,
        exemplar: dict[str, str] | None,
    ) -> None:
        """Counts a request. One whose version has gone meanwhile counts as if it had never been known."""
        if version and self._versions is not None and (model, version) not in self._versions:
            model, version = "unknown", ""
        self.requests.labels(method, task, model, version, code).inc()
        if code == "OK":
            self.request_seconds.labels(method, model, version).observe(seconds, exemplar)

    @contextmanager
    def loading(self, graph: str, version: int) -> Iterator[None]:
        """Counts and times a load; an exception is a failure of it."""
        if graph in self._gone_graphs:  # its old series count for nobody
            self._gone_graphs.discard(graph)
            self._graphs.pop(graph, None)
        labels = (graph, str(version))
        began = monotonic()
        failures = self.graph_load_failures.labels(
            *labels
        )  # there from the first load on, so that it can rise
        try:
            yield
        except Exception:
            failures.inc()
            raise
        self.graph_loads.labels(*labels).inc()
        self.graph_load_seconds.labels(*labels).set(monotonic() - began)

    def keep(self, catalog: Catalog) -> None:
        """Lets go of the series of whatever is not in the catalog; to be told of each catalog that is served.

        Calls of a graph that is gone may still be under way: they go on counting where nobody looks.
        """
        models = set(catalog.models)
        self._versions = frozenset(
            (name, str(version)) for name, model in catalog.models.items() for version in model.versions
        )
        graphs = {
            (manifest.graph, str(version))
            for model in catalog.models.values()
            for manifest in model.graphs.values()
            for version in model.versions
        }
        self._gone_graphs |= self._graphs.keys() - {graph for graph, _ in graphs}
        for metric, labels in list(self._series()):
            match labels:
                case {"model": "unknown"}:
                    gone = False
                case {"model": model, "version": version} if version:
                    gone = (model, version) not in self._versions
                case {"model": model}:
                    gone = model not in models
                case {"graph": graph, "version": version}:
                    gone = (graph, version) not in graphs
                case {"graph": graph}:
                    gone = graph in self._gone_graphs
                case _:
                    gone = False
            if gone:
                metric.remove_by_labels(labels)

    def _series(self) -> Iterator[tuple[Counter | Gauge | Histogram, dict[str, str]]]:
        """Each metric with the labels of each of its series."""
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                for family in metric.collect():
                    for sample in family.samples:
                        yield metric, {name: value for name, value in sample.labels.items() if name != "le"}
