"""Recording rules: the ratios that the objectives are judged by, and what dashboards ask often."""

from __future__ import annotations

from monitoring.objectives import LATENCY_SECONDS, WINDOWS
from monitoring.rules import Group, Record

# The gateway's fault. Refusals are told apart by reason: what could never fit is the client's mistake, and
# so is going over the limits of one's key.
_FAULTS = "INTERNAL|UNAVAILABLE|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED"
_WANT_OF_ROOM = "rows|bytes|late"


def errors_ratio(window: str) -> str:
    """Name of the share of requests that failed or were refused for want of room."""
    return f"job:atelier_request_errors:ratio_rate{window}"


def slow_ratio(window: str) -> str:
    """Name of the share of answered requests that took too long."""
    return f"job:atelier_request_slow:ratio_rate{window}"


def _rate(selector: str, window: str) -> str:
    return f"sum by (namespace, job) (rate({selector}[{window}]))"


def _errors(window: str) -> Record:
    requests = _rate("atelier_requests_total", window)
    failed = _rate(f'atelier_requests_total{{code=~"{_FAULTS}"}}', window)
    refused = _rate(f'atelier_requests_refused_total{{reason=~"{_WANT_OF_ROOM}"}}', window)
    expr = f"(\n  ({failed} or 0 * {requests})\n  + {refused}\n)\n/ ({requests} > 0)"
    return Record(name=errors_ratio(window), expr=expr)


def _slow(window: str) -> Record:
    answered = _rate("atelier_request_seconds_count", window)
    fast = _rate(f'atelier_request_seconds_bucket{{le="{float(LATENCY_SECONDS)}"}}', window)
    return Record(name=slow_ratio(window), expr=f"1 - {fast}\n/ ({answered} > 0)")


GROUPS = (
    Group(
        name="atelier-objectives",
        rules=[make(window) for make in (_errors, _slow) for window in WINDOWS],
    ),
    Group(
        name="atelier-rates",
        rules=[
            Record(
                name="model_code:atelier_requests:rate5m",
                expr="sum by (namespace, job, model, code) (rate(atelier_requests_total[5m]))",
            ),
            Record(
                name="model:atelier_request_seconds:p95_5m",
                expr="histogram_quantile(0.95,\n"
                "  sum by (namespace, job, model, le) (rate(atelier_request_seconds_bucket[5m])))",
            ),
            Record(
                name="graph:atelier_rows:rate5m",
                expr="sum by (namespace, job, graph) (rate(atelier_rows_total[5m]))",
            ),
            Record(
                name="graph:atelier_batch_rows:mean5m",
                expr="sum by (namespace, job, graph) (rate(atelier_batch_rows_sum[5m]))\n"
                "/ (sum by (namespace, job, graph) (rate(atelier_batch_rows_count[5m])) > 0)",
            ),
            Record(
                name="instance:atelier_slots:utilization5m",
                expr="sum by (namespace, job, instance, pod) (rate(atelier_call_seconds_sum[5m]))\n"
                "/ on (namespace, job, instance, pod) atelier_slots",
            ),
            Record(
                name="instance:atelier_backlog:seconds",
                expr="atelier_backlog_seconds / atelier_slots",
            ),
        ],
    ),
)
