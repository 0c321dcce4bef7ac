"""Counters and histograms that one thread writes, the event loop's, and any may read.

What is counted several times for each request is counted here. prometheus_client's own metrics, which any
thread may write, take two locks at each observation and look at one bucket after the other.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series(Protocol):
    """What is counted under one combination of labels."""

    def add_to(self, family: Any, labels: Sequence[str]) -> None:
        """Adds its samples to a metric family of its kind."""


class Tally:
    """How often something happened, or how much of it there is."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0.0

    def inc(self, amount: float = 1) -> None:
        """So much more."""
        self._value += amount

    def dec(self) -> None:
        """One less, of what comes and goes."""
        self._value -= 1

    def set(self, value: float) -> None:
        """So much from now on."""
        self._value = value

    def add_to(self, family: CounterMetricFamily | GaugeMetricFamily, labels: Sequence[str]) -> None:
        """Adds its sample to a metric family."""
        family.add_metric(labels, self._value)


class Distribution:
    """How often values were at most each of some bounds, their number and their sum."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_names", "_sum")

    def __init__(self, bounds: Sequence[float], names: Sequence[str]) -> None:
        """With bounds that ascend, and how each and infinity are written."""
        self._bounds = bounds
        self._names = names
        self._counts = [0] * len(names)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, exemplar: dict[str, str] | None = None) -> None:
        """One more value; the labels of an exemplar say where it is from."""
        place = bisect_left(self._bounds, value)
        self._counts[place] += 1
        self._sum += value
        if exemplar is not None:
            self._exemplars[place] = Exemplar(exemplar, value, time.time())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Adds its buckets, its number and its sum to a metric family."""
        exemplars = map(self._exemplars.get, range(len(self._names)))
        buckets: Any = list(zip(self._names, accumulate(self._counts), exemplars, strict=True))
        family.add_metric(labels, buckets, self._sum)


S = TypeVar("S", bound=Series)


class Family(Collector, Generic[S]):
    """A metric: its series, by the values of its labels."""

    def __init__(self, empty: Callable[[], Any], labels: Sequence[str], begin: Callable[[], S]) -> None:
        """`empty` gives a metric family without samples, `begin` a series from zero on."""
        self.label_names = tuple(labels)
        self._empty = empty
        self._begin = begin
        self._series: dict[tuple[str, ...], S] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> S:
        """The series of these values, which stand in the order of the labels' names; a new one if need be."""
        known = self._series.get(values)
        if known is None:
            assert len(values) == len(self.label_names), f"values for {self.label_names}"
            known = self._series[values] = self._begin()
        return known

    def remove(self, gone: Callable[[Mapping[str, str]], bool]) -> None:
        """Drops the series whose labels are those of something that is gone."""
        for values in list(self._series):
            if gone(dict(zip(self.label_names, values, strict=True))):
                del self._series[values]

    def describe(self) -> list[Any]:
        """The metric family without samples."""
        return [self._empty()]

    def collect(self) -> Iterator[Any]:
        """The metric family as it is now."""
        family = self._empty()
        for values, series in list(self._series.items()):
            series.add_to(family, values)
        yield family


def counters(
    name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
) -> Family[Tally]:
    """Counters, registered; `name` goes without `_total`."""
    return _registered(registry, CounterMetricFamily, name, documentation, labels, Tally)


def gauges(
    name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
) -> Family[Tally]:
    """Gauges of what comes and goes, registered."""
    return _registered(registry, GaugeMetricFamily, name, documentation, labels, Tally)


def histograms(
    name: str,
    documentation: str,
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float],
    registry: CollectorRegistry,
) -> Family[Distribution]:
    """Histograms with these upper bounds, registered."""
    names = [floatToGoString(bound) for bound in (*buckets, inf)]  # type: ignore[no-untyped-call]
    return _registered(
        registry, HistogramMetricFamily, name, documentation, labels, lambda: Distribution(buckets, names)
    )


def _registered(
    registry: CollectorRegistry,
    kind: Callable[..., Any],
    name: str,
    documentation: str,
    labels: Sequence[str],
    begin: Callable[[], S],
) -> Family[S]:
    family = Family(lambda: kind(name, documentation, labels=labels), labels, begin)
    registry.register(family)
    return family
