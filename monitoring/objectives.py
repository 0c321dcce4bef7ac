"""What users are promised. Change it here, and `python -m monitoring` writes rules and dashboards anew."""

from __future__ import annotations

from dataclasses import dataclass

AVAILABILITY = 0.995
"""Share of requests that are neither failed nor refused for want of room, over thirty days."""
LATENCY = 0.95
"""Share of answered requests that are answered within `LATENCY_SECONDS`, over thirty days."""
LATENCY_SECONDS = 10
"""A bound of the histogram `atelier_request_seconds`."""


@dataclass(frozen=True, kw_only=True)
class Burn:
    """How fast the error budget may go before somebody is told (Google's SRE workbook, chapter 5)."""

    factor: float
    """Times as fast as would just use it up in thirty days."""
    long: str
    """Window over which it has gone that fast."""
    short: str
    """Window over which it still does."""
    severity: str
    """`page` for now, `ticket` for tomorrow."""


BURNS = (
    Burn(factor=14.4, long="1h", short="5m", severity="page"),
    Burn(factor=6, long="6h", short="30m", severity="page"),
    Burn(factor=3, long="1d", short="2h", severity="ticket"),
    Burn(factor=1, long="3d", short="6h", severity="ticket"),
)
"""The four of the workbook, the fastest first."""

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""Every window of `BURNS`."""
