"""Alerts. What to do about each stands under its name in docs/observability.md."""

from __future__ import annotations

from collections.abc import Callable

from monitoring.objectives import AVAILABILITY, BURNS, LATENCY, LATENCY_SECONDS
from monitoring.recording import errors_ratio, slow_ratio
from monitoring.rules import Alert, Group

_STRANGERS = (
    'sum by (namespace, job)\n  (rate(atelier_callers_turned_away_total{reason=~"no_key|unknown_key"}[10m]))'
)


def _burning(name: str, what: str, objective: float, ratio: Callable[[str], str]) -> list[Alert]:
    """A pair of windows each: the long one says that it matters, the short one that it has not ended."""
    return [
        Alert(
            name=name,
            expr=f"{ratio(burn.long)} > {burn.factor * (1 - objective):.6g}\n"
            f"and {ratio(burn.short)} > {burn.factor * (1 - objective):.6g}",
            summary=f"{{{{ $value | humanizePercentage }}}} of the requests of {{{{ $labels.job }}}} {what}: "
            f"over {burn.long} the budget of thirty days has been going {burn.factor:g} times too fast.",
            severity=burn.severity,
            labels={"window": burn.long},
        )
        for burn in BURNS
    ]


GROUPS = (
    Group(
        name="atelier-burn",
        rules=[
            *_burning("AtelierErrorBudgetBurn", "fail or find no room", AVAILABILITY, errors_ratio),
            *_burning("AtelierLatencyBudgetBurn", f"take more than {LATENCY_SECONDS} s", LATENCY, slow_ratio),
        ],
    ),
    Group(
        name="atelier-gateway",
        rules=[
            Alert(
                name="AtelierAbsent",
                expr="absent(atelier_build_info)",
                summary="No gateway is being scraped.",
                after="5m",
                severity="page",
            ),
            Alert(
                name="AtelierNotReady",
                expr="atelier_ready == 0",
                summary="{{ $labels.instance }} has not been ready for ten minutes.",
                after="10m",
                severity="page",
            ),
            Alert(
                name="AtelierQueueSaturated",
                expr="atelier_rows_admitted / atelier_rows_limit > 0.9\n"
                "or atelier_bytes_admitted / atelier_bytes_limit > 0.9",
                summary="{{ $labels.instance }} has {{ $value | humanizePercentage }} of its room taken: "
                "it is about to refuse requests.",
                after="10m",
            ),
            Alert(
                name="AtelierBacklogLong",
                expr="atelier_backlog_seconds / atelier_slots > 60",
                summary="{{ $labels.instance }} has {{ $value | humanizeDuration }} of work before it.",
                after="10m",
            ),
            Alert(
                name="AtelierCallersTurnedAway",
                # Where nobody was ever let in, there are no requests to compare with.
                expr=f"{_STRANGERS}\n> (sum by (namespace, job) (rate(atelier_requests_total[10m]))\n"
                f"  or 0 * {_STRANGERS})",
                summary="{{ $value | humanize }} requests a second come to {{ $labels.job }} without a key "
                "that is known, more than come with one.",
                after="10m",
            ),
            Alert(
                name="AtelierModelLoadFailed",
                expr="atelier_refused == 1",
                summary="{{ $labels.name }} is refused by {{ $labels.instance }}: its log says why.",
                after="2m",
            ),
            Alert(
                name="AtelierRepositoryUnreachable",
                expr="atelier_repository_reachable == 0",
                summary="{{ $labels.instance }} does not find its repository; what is loaded is served.",
                after="5m",
            ),
            Alert(
                name="AtelierCallsFail",
                expr="sum by (namespace, job, instance, graph) (rate(atelier_call_failures_total[5m])) > 0",
                summary="Calls of {{ $labels.graph }} fail on {{ $labels.instance }}.",
                after="5m",
            ),
            Alert(
                name="AtelierWorkWasted",
                expr="sum by (namespace, job) (rate(atelier_rows_in_vain_total[30m]))\n"
                "/ (sum by (namespace, job) (rate(atelier_rows_total[30m])) > 0) > 0.2",
                summary="{{ $value | humanizePercentage }} of what {{ $labels.job }} computes is for "
                "requests that go before their end.",
                after="30m",
            ),
            Alert(
                name="AtelierEventLoopBlocked",
                expr="histogram_quantile(0.99, sum by (namespace, job, instance, le)\n"
                "  (rate(atelier_event_loop_lag_seconds_bucket[5m]))) > 0.25",
                summary="Something blocks the event loop of {{ $labels.instance }} for "
                "{{ $value | humanizeDuration }} at a time.",
                after="10m",
            ),
        ],
    ),
    Group(
        name="atelier-gpu",
        rules=[
            Alert(
                name="AtelierGpuLost",
                expr="atelier_gpu_up == 0",
                summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} is lost, or its driver hangs.",
                after="1m",
                severity="page",
            ),
            Alert(
                name="AtelierGpuXid",
                # A counter that has just appeared has no increase yet.
                expr="increase(atelier_gpu_xid_errors_total[1h]) > 0\n"
                "or (atelier_gpu_xid_errors_total unless atelier_gpu_xid_errors_total offset 1h) > 0",
                summary="The driver reports Xid {{ $labels.xid }} on GPU {{ $labels.gpu }} of "
                "{{ $labels.instance }}.",
                severity="page",
            ),
            Alert(
                name="AtelierGpuMemoryErrors",
                expr='increase(atelier_gpu_ecc_errors_total{kind="uncorrected"}[1h]) > 0',
                summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} has memory errors that could not be "
                "corrected.",
                severity="page",
            ),
            Alert(
                name="AtelierGpuThrottled",
                expr="max by (namespace, job, instance, gpu)\n"
                '  (atelier_gpu_throttled{reason=~"thermal|hardware|hardware_thermal|power_brake"}) == 1',
                summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} is too hot, or lacks power.",
                after="15m",
            ),
            Alert(
                name="AtelierGpuMemoryFull",
                expr="atelier_gpu_memory_used_bytes / atelier_gpu_memory_total_bytes > 0.97",
                summary="The memory of GPU {{ $labels.gpu }} of {{ $labels.instance }} is full.",
                after="15m",
            ),
        ],
    ),
    Group(
        name="atelier-triton",
        rules=[
            Alert(
                name="AtelierTritonDown",
                expr='up{job=~".*triton.*"} == 0',
                summary="Triton at {{ $labels.instance }} does not answer Prometheus.",
                after="2m",
                severity="page",
            ),
        ],
    ),
)
