"""Is it well? Requests, latency, errors, room and work, over all models."""

from __future__ import annotations

from monitoring.objectives import AVAILABILITY, LATENCY, LATENCY_SECONDS
from monitoring.panels import WHERE, Dashboard, Panel, Query, here, mean, quantile, rate, total
from monitoring.recording import errors_ratio, slow_ratio


def _worst(ratio: str) -> str:
    """Of a ratio that is recorded by job."""
    return f'max({ratio}{{namespace=~"$namespace", job=~"$job"}})'


OVERVIEW = Dashboard(
    uid="atelier-overview",
    title="Atelier / Overview",
    description="Is it well? Requests, latency, errors, room and work, over all models.",
    variables=WHERE,
    rows={
        "Now": [
            Panel(
                title="Gateways ready",
                description="Gateways that say of themselves that they are ready.",
                queries=[Query(expr=f"sum({here('atelier_ready')})")],
                kind="figure",
                width=4,
            ),
            Panel(
                title="Requests",
                description="Requests answered in a second, well or not.",
                queries=[Query(expr=f"sum({rate('atelier_requests_total')})")],
                unit="reqps",
                kind="figure",
                width=4,
            ),
            Panel(
                title="Errors over an hour",
                description=f"Failed, or found no room; the objective is {1 - AVAILABILITY:.1%}.",
                queries=[Query(expr=_worst(errors_ratio("1h")))],
                unit="percentunit",
                kind="figure",
                width=4,
                good=(1 - AVAILABILITY, 10 * (1 - AVAILABILITY)),
            ),
            Panel(
                title=f"Over {LATENCY_SECONDS} s over an hour",
                description=f"Answers that took longer; the objective is {1 - LATENCY:.0%}.",
                queries=[Query(expr=_worst(slow_ratio("1h")))],
                unit="percentunit",
                kind="figure",
                width=4,
                good=(1 - LATENCY, 2 * (1 - LATENCY)),
            ),
            Panel(
                title="Room taken",
                description="Rows under way of those that may be: at 100% requests are refused.",
                queries=[Query(expr=f"max({here('atelier_rows_admitted')} / {here('atelier_rows_limit')})")],
                unit="percentunit",
                kind="figure",
                width=4,
                good=(0.7, 0.9),
            ),
            Panel(
                title="Work ahead",
                description="Seconds until the fullest gateway has computed what it has taken on.",
                queries=[Query(expr=f"max({here('atelier_backlog_seconds')} / {here('atelier_slots')})")],
                unit="s",
                kind="figure",
                width=4,
                good=(30, 60),
            ),
        ],
        "Requests": [
            Panel(
                title="Requests by model",
                description="Answered in a second, well or not.",
                queries=[Query(expr=total("atelier_requests_total", "model"), legend="{{model}}")],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Requests by code",
                description="OK is well, RESOURCE_EXHAUSTED is full, CANCELLED is a client that left.",
                queries=[Query(expr=total("atelier_requests_total", "code"), legend="{{code}}")],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Requests in flight",
                description="Being worked on at the moment.",
                queries=[
                    Query(expr=f"sum by (method) ({here('atelier_requests_in_flight')})", legend="{{method}}")
                ],
                kind="stacked",
            ),
            Panel(
                title="Latency",
                description="From arrival to answer, of requests that succeeded.",
                queries=[
                    Query(expr=quantile(q, "atelier_request_seconds"), legend=f"p{q * 100:g}")
                    for q in (0.5, 0.95, 0.99)
                ],
                unit="s",
            ),
            Panel(
                title="Where a request's time goes",
                description="Seconds of waiting, computing and encoding for each request that was answered. "
                "Calls of one request run side by side, and share batches: this is no sum.",
                queries=[
                    Query(
                        expr=f"sum({rate(f'atelier_{part}_seconds_sum')})\n"
                        f"/ (sum({rate('atelier_request_seconds_count')}) > 0)",
                        legend=part,
                    )
                    for part in ("queue", "call", "encode")
                ],
                unit="s",
            ),
            Panel(
                title="Refused at the door",
                description="rows and bytes: full. late: the backlog is too long for the deadline. "
                "hopeless and too_large: no gateway of this size could.",
                queries=[
                    Query(
                        expr=total("atelier_requests_refused_total", "reason"),
                        legend="{{reason}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Callers turned away",
                description="no_key, unknown_key and scope: who they are. key_...: over a limit of their "
                "key. too_large, too_slow and no_message: what they send. None of it reaches the engine.",
                queries=[
                    Query(
                        expr=total("atelier_callers_turned_away_total", "reason"),
                        legend="{{reason}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
            ),
        ],
        "Room and work": [
            Panel(
                title="Instances in use",
                description="Calls that run, of those that can. Near 100% more load means longer queues.",
                queries=[
                    Query(
                        expr=f"sum by (instance) ({rate('atelier_call_seconds_sum')})\n"
                        f"/ sum by (instance) ({here('atelier_slots')})",
                        legend="{{instance}}",
                    )
                ],
                unit="percentunit",
                most=1,
            ),
            Panel(
                title="Rows that wait",
                description="For an instance, by gateway: what an autoscaler should look at.",
                queries=[
                    Query(expr=f"sum by (instance) ({here('atelier_rows_pending')})", legend="{{instance}}")
                ],
            ),
            Panel(
                title="Event loop",
                description="How late a task that sleeps is woken. What blocks the loop delays everybody.",
                queries=[
                    Query(
                        expr=quantile(0.99, "atelier_event_loop_lag_seconds", "instance"),
                        legend="{{instance}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                title="CPU",
                description="Cores in use by each gateway, the embedded engine included.",
                queries=[Query(expr=rate("process_cpu_seconds_total"), legend="{{instance}}")],
            ),
            Panel(
                title="Memory",
                description="Resident, by gateway.",
                queries=[Query(expr=here("process_resident_memory_bytes"), legend="{{instance}}")],
                unit="bytes",
            ),
            Panel(
                title="Wait for an instance",
                description="Mean over the calls of requests, by graph.",
                queries=[Query(expr=mean("atelier_queue_seconds", "graph"), legend="{{graph}}")],
                unit="s",
            ),
        ],
    },
)
