"""What the gateway counts, in an injected registry.

Label values come from the catalog and from enums, never from clients: a request for a model that is not there
counts under `unknown`. `docs/metrics.md` is generated from what stands here.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector

from serving.errors import ServingError
from serving.observing.tallies import Distribution, Family, Tally, counters, gauges, histograms

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SHORT_SECONDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_GRAPH = ["graph"]

UNKNOWN = "unknown"
"""The model of requests for one that is not there."""
REASONS = ("rows", "bytes", "late", "hopeless", "too_large")
"""Why requests are refused at the door."""
TURNED_AWAY = (
    "no_key",
    "unknown_key",
    "scope",
    "key_requests",
    "key_images",
    "key_concurrency",
    "too_large",
    "too_slow",
    "no_message",
)
"""Why callers are turned away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphMetrics:
    """The series of one graph, looked up once rather than at every call."""

    queue_seconds: Distribution
    """See `Metrics`; so are the others."""
    call_seconds: Distribution
    """Of calls that succeeded."""
    batch_rows: Distribution
    """Without padding."""
    rows: Tally
    """Without padding."""
    rows_padded: Tally
    """Padding alone."""
    steps: Tally
    """Calls of requests."""
    rows_in_vain: Tally
    """Of requests that had gone."""
    call_failures: Tally
    """Calls that failed."""


class Metrics:
    """Metrics of one gateway. Those of a model, graph or version go when it goes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._graphs: dict[str, GraphMetrics] = {}
        self._gone_graphs: set[str] = set()
        # Children by labels: looking one up costs as much as counting it.
        self._answered: dict[tuple[str, ...], tuple[Tally, Distribution | None]] = {}
        self._in_flight: dict[str, Tally] = {}
        self._encode: dict[str, Distribution] = {}
        self._versions: dict[str, frozenset[str]] = {}
        self.requests = counters(
            "atelier_requests",
            "Requests answered, by canonical code. Task and version are empty where a request was refused "
            "before they were known.",
            ["method", "task", "model", "version", "code"],
            registry=registry,
        )
        self.request_seconds = histograms(
            "atelier_request_seconds",
            "Time from a request's arrival at the service to its answer, of those that succeeded.",
            ["method", "model", "version"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = gauges(
            "atelier_requests_in_flight", "Requests being worked on.", ["method"], registry=registry
        )
        self.refused = counters(
            "atelier_requests_refused",
            "Requests refused at the door: rows or bytes (full), late (the backlog is too long for the "
            "deadline), hopeless (an idle machine would be too slow), too_large (never fits).",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self.refused.labels(reason)
        self.callers_turned_away = counters(
            "atelier_callers_turned_away",
            "Requests turned away for who sent them or how: no_key, unknown_key, scope (the key lacks it), "
            "key_requests, key_images, key_concurrency (limits of the key), too_large (a body over "
            "max_message_bytes), too_slow (a body that does not come), no_message (gRPC's message did not "
            "come: it is over max_message_bytes, or the client left while it sent).",
            ["reason"],
            registry=registry,
        )
        for reason in TURNED_AWAY:
            self.callers_turned_away.labels(reason)
        self.shared = counters(
            "atelier_requests_shared",
            "Requests that joined an identical one under way.",
            ["model"],
            registry=registry,
        )
        self.cache_hits = counters(
            "atelier_cache_hits", "Requests answered from the cache.", ["model"], registry=registry
        )
        self.cache_misses = counters(
            "atelier_cache_misses",
            "Requests that the cache might have answered but could not.",
            ["model"],
            registry=registry,
        )
        self.cache_bytes = Gauge("atelier_cache_bytes", "Bytes of results in the cache.", registry=registry)
        self.encode_seconds = histograms(
            "atelier_encode_seconds",
            "Time that the pictures of an answer take to encode, waiting for a thread included.",
            ["format"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.queue_seconds = histograms(
            "atelier_queue_seconds",
            "Time that rows wait for an instance, by call of a request.",
            _GRAPH,
            buckets=_SECONDS,
            registry=registry,
        )
        self.call_seconds = histograms(
            "atelier_call_seconds",
            "Time that a batch takes in the backend.",
            _GRAPH,
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = histograms(
            "atelier_batch_rows",
            "Rows of requests in a batch, padding left out.",
            _GRAPH,
            buckets=_ROWS,
            registry=registry,
        )
        self.rows = counters("atelier_rows", "Rows computed, padding left out.", _GRAPH, registry=registry)
        self.rows_padded = counters(
            "atelier_rows_padded",
            "Rows computed to fill a batch up to the least size of the graph.",
            _GRAPH,
            registry=registry,
        )
        self.steps = counters(
            "atelier_steps",
            "Calls that requests made: each step of a sampler, each pass of a decoder or encoder.",
            _GRAPH,
            registry=registry,
        )
        self.rows_in_vain = counters(
            "atelier_rows_in_vain",
            "Rows computed for requests that had gone, or went before their end.",
            _GRAPH,
            registry=registry,
        )
        self.call_failures = counters(
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
        self.loads = counters(
            "atelier_loads",
            "Versions of graphs that were loaded or refused; a refusal counts again when its reason changes.",
            ["graph", "outcome"],
            registry=registry,
        )
        self.load_seconds = histograms(
            "atelier_load_seconds",
            "Time that a version of a graph takes to load, or to be refused.",
            _GRAPH,
            buckets=_SECONDS,
            registry=registry,
        )
        self.refused_places = gauges(
            "atelier_refused",
            "1 for each model, graph or graph/version of the repository that is refused; the log says why.",
            ["name"],
            registry=registry,
        )
        self.switches = counters(
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
        self.event_loop_lag_seconds = histograms(
            "atelier_event_loop_lag_seconds",
            "How late the event loop wakes a task that sleeps: what blocks it delays everybody.",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._of_models: tuple[Family[Any], ...] = (
            self.requests,
            self.request_seconds,
            self.shared,
            self.cache_hits,
            self.cache_misses,
            self.switches,
        )
        self._of_graphs: tuple[Family[Any], ...] = (
            self.queue_seconds,
            self.call_seconds,
            self.batch_rows,
            self.rows,
            self.rows_padded,
            self.steps,
            self.rows_in_vain,
            self.call_failures,
            self.loads,
            self.load_seconds,
        )
        self.build = Info("atelier_build", "What is running.", registry=registry)
        version = importlib.metadata.version("atelier")
        self.build.info({"version": version, "python": platform.python_version()})
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
        """Counts a request. A version or model that has gone meanwhile gets no series any more."""
        if version and version not in self._versions.get(model, ()):
            model, version = (model if model in self._versions else UNKNOWN), ""
        key = (method, task, model, version, code)
        known = self._answered.get(key)
        if known is None:
            latency = self.request_seconds.labels(method, model, version) if code == "OK" else None
            known = self._answered[key] = (self.requests.labels(*key), latency)
        answers, latency = known
        answers.inc()
        if latency is not None:
            latency.observe(seconds, exemplar)

    def turned_away(self, error: ServingError) -> None:
        """Counts a caller who was turned away, if that is what an error says."""
        if error.turned_away is not None:
            self.callers_turned_away.labels(error.turned_away).inc()

    def in_flight(self, method: str) -> Tally:
        """How many requests of a method are under way."""
        known = self._in_flight.get(method)
        if known is None:
            known = self._in_flight[method] = self.requests_in_flight.labels(method)
        return known

    def encoded(self, name: str, seconds: float, exemplar: dict[str, str] | None) -> None:
        """Observes the encoding of an answer in a format."""
        known = self._encode.get(name)
        if known is None:
            known = self._encode[name] = self.encode_seconds.labels(name)
        known.observe(seconds, exemplar)

    @contextmanager
    def loading(self, graph: str) -> Iterator[None]:
        """Times a load."""
        if graph in self._gone_graphs:  # its old series count for nobody
            self._gone_graphs.discard(graph)
            self._graphs.pop(graph, None)
        began = monotonic()
        try:
            yield
        finally:
            self.load_seconds.labels(graph).observe(monotonic() - began)

    def serve(self, model: str, versions: Iterable[int]) -> None:
        """A model has these versions from now on: the series of others go."""
        self._answered.clear()
        kept = self._versions[model] = frozenset(map(str, versions))
        for counter in (self.shared, self.switches, self.cache_hits, self.cache_misses):
            counter.labels(model)  # from zero on, so that the first one shows
        there = {"", *kept}
        for metric in (self.requests, self.request_seconds):
            metric.remove(lambda labels: labels["model"] == model and labels["version"] not in there)

    def forget_model(self, model: str) -> None:
        """Drops the series of a model that is gone."""
        self._answered.clear()
        self._versions.pop(model, None)
        for metric in self._of_models:
            metric.remove(lambda labels: labels["model"] == model)

    def forget_graph(self, graph: str) -> None:
        """Drops the series of a graph that is gone; calls still under way count where nobody looks."""
        self._gone_graphs.add(graph)
        for metric in self._of_graphs:
            metric.remove(lambda labels: labels["graph"] == graph)
