"""Counters and histograms of one thread, against those of prometheus_client."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import DuplicateTimeseries  # type: ignore[attr-defined]

from serving.observing.tallies import counters, gauges, histograms

BUCKETS = (0.001, 0.5, 1, 30)

observations = st.lists(
    st.tuples(st.sampled_from(["cats", 'd"o\\gs\n']), st.sampled_from([0, 0.001, 0.25, 0.5, 1, 7.5, 30, 31]))
)


def shown(registry: CollectorRegistry) -> str:
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if "_created" not in line)


@given(observations)
def test_they_show_what_prometheus_clients_own_show(observed: list[tuple[str, float]]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made: tuple[tuple[Any, Any, Any], ...] = (
        (
            counters("answers", "Answers.", ["model"], registry=ours),
            histograms("answer_seconds", "Time.", ["model"], buckets=BUCKETS, registry=ours),
            gauges("under_way", "How many.", ["model"], registry=ours),
        ),
        (
            Counter("answers", "Answers.", ["model"], registry=theirs),
            Histogram("answer_seconds", "Time.", ["model"], buckets=BUCKETS, registry=theirs),
            Gauge("under_way", "How many.", ["model"], registry=theirs),
        ),
    )
    for counter, histogram, gauge in made:
        for model, seconds in observed:
            counter.labels(model).inc(seconds)
            histogram.labels(model).observe(seconds)
            gauge.labels(model).set(seconds)
            gauge.labels(model).inc()
            gauge.labels(model).inc()
            gauge.labels(model).dec()
    assert shown(ours) == shown(theirs)


def test_each_bucket_keeps_its_last_exemplar():
    registry = CollectorRegistry()
    seconds = histograms("seconds", "Time.", buckets=BUCKETS, registry=registry).labels()
    for value, trace in ((0.3, "first"), (0.4, "second"), (0.2, None), (99, "slow")):
        seconds.observe(value, {"trace_id": trace} if trace else None)
    lines = shown(registry).splitlines()
    (half,) = [line for line in lines if line.startswith('seconds_bucket{le="0.5"}')]
    assert half.startswith('seconds_bucket{le="0.5"} 3.0 # {trace_id="second"} 0.4 ')
    (above,) = [line for line in lines if line.startswith('seconds_bucket{le="+Inf"}')]
    assert above.startswith('seconds_bucket{le="+Inf"} 4.0 # {trace_id="slow"} 99.0 ')
    assert not [line for line in lines if 'le="30.0"' in line and "trace_id" in line]


def test_what_has_no_labels_is_there_from_zero_on():
    registry = CollectorRegistry()
    counters("loads", "Loads.", registry=registry)
    assert registry.get_sample_value("loads_total") == 0


def test_series_go_by_their_labels_and_begin_again_from_zero():
    registry = CollectorRegistry()
    loads = counters("loads", "Loads.", ["graph", "outcome"], registry=registry)
    for graph in ("cats", "dogs"):
        loads.labels(graph, "loaded").inc(3)
    kept = loads.labels("cats", "loaded")
    loads.remove(lambda labels: labels["graph"] == "cats")
    kept.inc()  # by somebody who has not heard: nobody looks there any more
    cats = {"graph": "cats", "outcome": "loaded"}
    assert registry.get_sample_value("loads_total", cats) is None
    assert registry.get_sample_value("loads_total", {**cats, "graph": "dogs"}) == 3
    loads.labels("cats", "loaded").inc()
    assert registry.get_sample_value("loads_total", cats) == 1


def test_a_name_is_registered_once():
    registry = CollectorRegistry()
    counters("loads", "Loads.", registry=registry)
    with pytest.raises(DuplicateTimeseries):
        Counter("loads", "Others.", registry=registry)
