"""What is loaded, ready and allowed for, read from the live objects when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily

from serving.backends import Backend
from serving.batching.engine import Engine
from serving.repository.control import Control
from serving.repository.live import Repository


@dataclass(frozen=True, kw_only=True)
class StateCollector:
    """A collector whose series are there for as long as what they tell of. Called in any thread."""

    repository: Repository
    """What is served."""
    control: Control
    """Knows whether the gateway is ready."""
    backend: Backend
    """What computes."""
    engine: Engine
    """What waits and runs."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, as they are now."""
        ready, slots, backlog, graph_ready, instances = self.describe()
        ready.add_metric([], float(self.control.not_ready_reason() is None))
        slots.add_metric([], self.backend.slots())
        backlog.add_metric([], self.engine.backlog.seconds)
        for name, model in self.repository.catalog.models.items():
            for manifest in model.graphs.values():
                instances.add_metric([manifest.graph], self.backend.instances(manifest.graph))
                for version in model.versions:
                    up = self.backend.ready(manifest.graph, version)
                    graph_ready.add_metric([name, manifest.graph, str(version)], float(up))
        yield from (ready, slots, backlog, graph_ready, instances)

    @staticmethod
    def describe() -> list[GaugeMetricFamily]:
        """The gauges without values."""
        return [
            GaugeMetricFamily("atelier_ready", "1 while the gateway is ready, as /readyz says."),
            GaugeMetricFamily("atelier_slots", "Calls to all graphs together that run at a time."),
            GaugeMetricFamily(
                "atelier_backlog_seconds",
                "Compute time that the requests under way are still expected to take, at the measured cost.",
            ),
            GaugeMetricFamily(
                "atelier_graph_ready",
                "1 where a version of a graph is loaded, 0 where it is not.",
                labels=["model", "graph", "version"],
            ),
            GaugeMetricFamily(
                "atelier_graph_instances", "Calls to the graph that run at a time.", labels=["graph"]
            ),
        ]
