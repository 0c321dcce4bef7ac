"""Watches how late the event loop is: whatever blocks it delays every request."""

from __future__ import annotations

import asyncio
from time import monotonic

from serving.observing.metrics import Metrics

_SECONDS = 0.25


async def watch_event_loop(metrics: Metrics) -> None:
    """Sleeps again and again, and observes how long after its time it wakes. Runs until it is cancelled."""
    lag = metrics.event_loop_lag_seconds.labels()
    while True:
        due = monotonic() + _SECONDS
        await asyncio.sleep(_SECONDS)
        lag.observe(max(0.0, monotonic() - due))
