"""Dashboards before they are Grafana's: rows of panels, panels of queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_HERE = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression of a panel."""

    expr: str
    """In PromQL, with Grafana's variables."""
    legend: str = ""
    """Name of each series, with `{{label}}`."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    """What it shows."""
    description: str
    """What to make of it, in a sentence or two."""
    queries: Sequence[Query]
    """What it draws."""
    unit: str = "short"
    """Grafana's name of the unit."""
    kind: str = "lines"
    """lines, stacked, figure, heatmap or table."""
    width: int = 8
    """Of 24."""
    most: float | None = None
    """Upper end of the axis, where it has a natural one."""
    good: tuple[float, float] | None = None
    """Values from which it is to be looked at, and from which it is bad; green below."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a reader may choose: the values of a label."""

    name: str
    """Name in expressions, and of the label."""
    metric: str
    """Whose label it is."""


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard."""

    uid: str
    """Stable name, also of its file."""
    title: str
    """As people see it."""
    description: str
    """In a sentence."""
    rows: Mapping[str, Sequence[Panel]]
    """Panels by the title of their row."""
    variables: Sequence[Variable]
    """What may be chosen, besides the data source."""


WHERE = (
    Variable(name="namespace", metric="atelier_build_info"),
    Variable(name="job", metric="atelier_build_info"),
    Variable(name="instance", metric="atelier_build_info"),
)
"""The choice of gateways."""


def here(metric: str, also: str = "") -> str:
    """The series of a metric of the gateways that are chosen."""
    return f"{metric}{{{also + ', ' if also else ''}{_HERE}}}"


def rate(metric: str, also: str = "") -> str:
    """What a counter of theirs grows by in a second."""
    return f"rate({here(metric, also)}[$__rate_interval])"


def quantile(q: float, metric: str, by: str = "", also: str = "") -> str:
    """A quantile of a histogram of theirs, by some labels."""
    labels = ", ".join(filter(None, [by, "le"]))
    return f"histogram_quantile({q}, sum by ({labels}) ({rate(metric + '_bucket', also)}))"


def total(metric: str, by: str, also: str = "") -> str:
    """What a counter of theirs grows by in a second, by some labels."""
    return f"sum by ({by}) ({rate(metric, also)})"


def ratio(part: str, whole: str) -> str:
    """One by the other, where there is any of it."""
    return f"{part}\n/ ({whole} > 0)"


def mean(metric: str, by: str, also: str = "") -> str:
    """The mean of a histogram of theirs, by a label."""
    return ratio(total(metric + "_sum", by, also), total(metric + "_count", by, also))


def metrics_of(expr: str) -> set[str]:
    """Names of the metrics of ours in an expression."""
    return set(re.findall(r"\b(?:atelier|nv|kube|container|process)_[a-z0-9_]+", expr))
