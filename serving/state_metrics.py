"""What is loaded, ready and allowed for, read from the live objects when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily

from serving.backends import Backend
from serving.catalog import Catalog

READY = "atelier_ready"
SLOTS = "atelier_slots"
MODELS_REFUSED = "atelier_models_refused"
BACKLOG = "atelier_backlog_seconds"
GRAPH_READY = "atelier_graph_ready"
GRAPH_INSTANCES = "atelier_graph_instances"


@dataclass(frozen=True, kw_only=True)
class StateCollector:
    """A collector whose series are there for as long as what they tell of. Called in any thread."""

    catalog: Callable[[], Catalog]
    """What is served now."""
    backend: Backend
    """What computes."""
    not_ready_reason: Callable[[], str | None]
    """Why the gateway is not ready."""
    backlog_seconds: Callable[[], float]
    """Compute time that the requests under way are still expected to take."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, as they are now."""
        catalog = self.catalog()
        ready, slots, backlog, refused, graph_ready, instances = self.describe()
        ready.add_metric([], float(self.not_ready_reason() is None))
        slots.add_metric([], self.backend.slots())
        backlog.add_metric([], self.backlog_seconds())
        refused.add_metric([], len(catalog.refused))
        for name, model in catalog.models.items():
            for manifest in model.graphs.values():
                instances.add_metric([manifest.graph], self.backend.instances(manifest.graph))
                for version in model.versions:
                    up = self.backend.ready(manifest.graph, version)
                    graph_ready.add_metric([name, manifest.graph, str(version)], float(up))
        yield from (ready, slots, backlog, refused, graph_ready, instances)

    @staticmethod
    def describe() -> list[GaugeMetricFamily]:
        """The gauges without values."""
        return [
            GaugeMetricFamily(READY, "1 while the gateway is ready, as /readyz says."),
            GaugeMetricFamily(SLOTS, "Calls to all graphs together that run at a time."),
            GaugeMetricFamily(
                BACKLOG,
                "Compute time that the requests under way are still expected to take, at the measured cost.",
            ),
            GaugeMetricFamily(
                MODELS_REFUSED, "Models, graphs or versions of the repository that cannot be served."
            ),
            GaugeMetricFamily(
                GRAPH_READY,
                "1 where a version of a graph is loaded, 0 where it is not.",
                labels=["model", "graph", "version"],
            ),
            GaugeMetricFamily(GRAPH_INSTANCES, "Calls to the graph that run at a time.", labels=["graph"]),
        ]
