"""docs/metrics.md: every metric of the gateway, as the code has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from serving.observing.gpu import FAMILIES
from serving.observing.metrics import Metrics
from serving.observing.tallies import Family
from serving.repository.state_metrics import StateCollector

_HEAD = """\
# Metrics

<!-- Written by `python -m monitoring`; do not edit. -->

Every metric of the gateway, on `/metrics` of the metrics port (8082) and of the HTTP port. Units are base
units: seconds, bytes, joules, hertz, ratios from 0 to 1. [Observability](observability.md) says what to make
of them, and what rules and dashboards there are.

Label values come from the repository and from lists in the code, never from clients: requests for a model
that is not there count under `unknown`. The series of a model, graph or version go when it goes.
"""

_PROCESS = """\
## Process

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_open_fds`, `process_max_fds` and `process_start_time_seconds`, as every Prometheus client has them.
"""

_SUFFIXES = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True, kw_only=True)
class _Row:
    name: str
    kind: str
    labels: Sequence[str]
    documentation: str


def to_markdown() -> str:
    """The page."""
    sections = {
        "Requests, engine and repository": sorted(_counted(), key=lambda row: row.name),
        "State": list(_state()),
        "GPUs": list(_gpus()),
    }
    words = {
        "State": "Read when somebody scrapes.",
        "GPUs": "Through NVML, read every five seconds. Without a driver there are none of these; what a GPU "
        "does not know of itself is left out, and of one that is lost `atelier_gpu_up` is left, and 0.",
    }
    parts = [_HEAD]
    for title, rows in sections.items():
        parts.append(f"## {title}\n\n" + (f"{words[title]}\n\n" if title in words else "") + _table(rows))
    return "\n".join([*parts, _PROCESS])


def _table(rows: Sequence[_Row]) -> str:
    lines = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.documentation} |")
    return "\n".join(lines) + "\n"


def _counted() -> Iterator[_Row]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for metric in vars(metrics).values():
        if isinstance(metric, Family | MetricWrapperBase):
            (family,) = metric.collect()
            labels = metric.label_names if isinstance(metric, Family) else tuple(family.samples[0].labels)
            yield _Row(
                name=family.name + _SUFFIXES.get(family.type, ""),
                kind=family.type,
                labels=labels,
                documentation=family.documentation,
            )


def _state() -> Iterator[_Row]:
    for family in StateCollector.describe():
        yield _Row(
            name=family.name, kind="gauge", labels=family._labelnames, documentation=family.documentation
        )


def _gpus() -> Iterator[_Row]:
    for family in FAMILIES:
        kind = "counter" if family.name.endswith("_total") else "gauge"
        yield _Row(name=family.name, kind=kind, labels=family.labels, documentation=family.documentation)
