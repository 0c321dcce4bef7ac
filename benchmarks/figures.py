"""What a load run comes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load import Load
from benchmarks.summary import percentile


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Throughput and latency of one run. Rates are per second, latencies in seconds."""

    rows: float
    """Rows of the denoiser, or of the generator."""
    images: float
    """Images."""
    requests: float
    """Requests."""
    p50: float
    """Median latency of all requests."""
    p95: float
    """Of all requests, 95 in 100 were faster."""
    p99: float
    """And 99 in 100."""
    short_p50: float
    """Median latency of short requests."""
    short_p95: float
    """Of the short requests, 95 in 100 were faster."""
    failed: int
    """Requests that were not answered with images."""


def figures(load: Load) -> dict[str, Any]:
    """The figures of a run, as JSON has them."""
    every, short = load.latencies(), load.latencies(lambda ask: ask.short)
    return asdict(
        Figures(
            rows=load.credit(lambda ask: ask.rows),
            images=load.credit(lambda ask: ask.count),
            requests=load.credit(lambda ask: 1),
            p50=percentile(every, 50),
            p95=percentile(every, 95),
            p99=percentile(every, 99),
            short_p50=percentile(short, 50),
            short_p95=percentile(short, 95),
            failed=sum(answer.outcome != "ok" for answer in load.sent()),
        )
    )
