"""The engine: how calls are batched, what they cost, and what is computed for nobody."""

from __future__ import annotations

from monitoring.panels import WHERE, Dashboard, Panel, Query, Variable, here, mean, quantile, ratio, total

_GRAPH = 'graph=~"$graph"'


def _by_graph(metric: str) -> str:
    return total(metric, "graph", _GRAPH)


def _ever(metric: str) -> str:
    return f"sum by (graph) ({here(metric, _GRAPH)})"


def _triton(metric: str) -> str:
    return f"sum by (model) (rate({metric}[$__rate_interval]))"


ENGINE = Dashboard(
    uid="atelier-engine",
    title="Atelier / Engine",
    description="How calls are batched, what they cost, and what is computed for nobody.",
    variables=(*WHERE, Variable(name="graph", metric="atelier_graph_ready")),
    rows={
        "Batches": [
            Panel(
                title="Rows",
                description="Computed in a second, by graph, padding left out.",
                queries=[Query(expr=_by_graph("atelier_rows_total"), legend="{{graph}}")],
                unit="rowsps",
                kind="stacked",
            ),
            Panel(
                title="Rows in a batch",
                description="Mean. Batches grow with the load, up to where more rows gain nothing.",
                queries=[Query(expr=mean("atelier_batch_rows", "graph", _GRAPH), legend="{{graph}}")],
            ),
            Panel(
                title="Sizes of batches",
                description="How many batches had how many rows.",
                queries=[Query(expr=total("atelier_batch_rows_bucket", "le", _GRAPH), legend="{{le}}")],
                kind="heatmap",
            ),
            Panel(
                title="Calls",
                description="Batches in a second, by graph.",
                queries=[Query(expr=_by_graph("atelier_call_seconds_count"), legend="{{graph}}")],
                unit="ops",
            ),
            Panel(
                title="Steps",
                description="Calls that requests made in a second: several share a batch.",
                queries=[Query(expr=_by_graph("atelier_steps_total"), legend="{{graph}}")],
                unit="ops",
            ),
            Panel(
                title="Requests that share a batch",
                description="Steps for each call: 1 is no sharing.",
                queries=[
                    Query(
                        expr=ratio(_by_graph("atelier_steps_total"), _by_graph("atelier_call_seconds_count")),
                        legend="{{graph}}",
                    )
                ],
            ),
        ],
        "Cost": [
            Panel(
                title="Time of a call",
                description="95th percentile in the backend.",
                queries=[
                    Query(expr=quantile(0.95, "atelier_call_seconds", "graph", _GRAPH), legend="{{graph}}")
                ],
                unit="s",
            ),
            Panel(
                title="Cost of a row",
                description="Time in the backend for each row: what batching brings shows here.",
                queries=[
                    Query(
                        expr=ratio(_by_graph("atelier_call_seconds_sum"), _by_graph("atelier_rows_total")),
                        legend="{{graph}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                title="Wait for an instance",
                description="95th percentile, by call of a request.",
                queries=[
                    Query(expr=quantile(0.95, "atelier_queue_seconds", "graph", _GRAPH), legend="{{graph}}")
                ],
                unit="s",
            ),
            Panel(
                title="Share of the machine",
                description="Instances that each graph keeps busy.",
                queries=[Query(expr=_by_graph("atelier_call_seconds_sum"), legend="{{graph}}")],
                kind="stacked",
            ),
            Panel(
                title="Encoding",
                description="95th percentile of the time that the pictures of an answer take.",
                queries=[Query(expr=quantile(0.95, "atelier_encode_seconds", "format"), legend="{{format}}")],
                unit="s",
            ),
            Panel(
                title="Loading",
                description="Mean time that a version of a graph took to load, since the gateway started.",
                queries=[
                    Query(
                        expr=ratio(_ever("atelier_load_seconds_sum"), _ever("atelier_load_seconds_count")),
                        legend="{{graph}}",
                    )
                ],
                unit="s",
            ),
        ],
        "Wasted and failed": [
            Panel(
                title="Rows computed in vain",
                description="For requests that were cancelled or ran out of time.",
                queries=[Query(expr=_by_graph("atelier_rows_in_vain_total"), legend="{{graph}}")],
                unit="rowsps",
            ),
            Panel(
                title="Share in vain",
                description="Of all rows.",
                queries=[
                    Query(
                        expr=ratio(_by_graph("atelier_rows_in_vain_total"), _by_graph("atelier_rows_total")),
                        legend="{{graph}}",
                    )
                ],
                unit="percentunit",
            ),
            Panel(
                title="Padding",
                description="Rows that only fill a batch up to the least size of its graph.",
                queries=[Query(expr=_by_graph("atelier_rows_padded_total"), legend="{{graph}}")],
                unit="rowsps",
            ),
            Panel(
                title="Failed calls",
                description="Batches that the backend failed.",
                queries=[Query(expr=_by_graph("atelier_call_failures_total"), legend="{{graph}}")],
                unit="ops",
                width=12,
            ),
            Panel(
                title="Cancelled requests",
                description="Clients that left before their answer.",
                queries=[
                    Query(
                        expr=total("atelier_requests_total", "model", 'code="CANCELLED"'),
                        legend="{{model}}",
                    )
                ],
                unit="reqps",
                width=12,
            ),
        ],
        "Triton, where it computes": [
            Panel(
                title="Inferences",
                description="Rows that Triton computed in a second.",
                queries=[Query(expr=_triton("nv_inference_count"), legend="{{model}}")],
                unit="rowsps",
                width=6,
            ),
            Panel(
                title="Rows in an execution",
                description="The gateway batches; Triton's own batcher may add to it.",
                queries=[
                    Query(
                        expr=ratio(_triton("nv_inference_count"), _triton("nv_inference_exec_count")),
                        legend="{{model}}",
                    )
                ],
                width=6,
            ),
            Panel(
                title="Compute time of an inference",
                description="Inside of Triton: what a call takes longer is the way there and back.",
                queries=[
                    Query(
                        expr=ratio(
                            _triton("nv_inference_compute_infer_duration_us") + " / 1e6",
                            _triton("nv_inference_request_success"),
                        ),
                        legend="{{model}}",
                    )
                ],
                unit="s",
                width=6,
            ),
            Panel(
                title="Queue inside of Triton",
                description="Should be near zero: the gateway sends no more calls than there are instances.",
                queries=[
                    Query(
                        expr=ratio(
                            _triton("nv_inference_queue_duration_us") + " / 1e6",
                            _triton("nv_inference_request_success"),
                        ),
                        legend="{{model}}",
                    )
                ],
                unit="s",
                width=6,
            ),
        ],
    },
)
