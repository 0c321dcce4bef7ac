"""One model: who asks it for what, how it does, and which versions serve it."""

from __future__ import annotations

from monitoring.panels import WHERE, Dashboard, Panel, Query, Variable, here, quantile, total

_MODEL = 'model=~"$model"'
_SWITCHES = f"increase({here('atelier_version_switches_total', _MODEL)}[1h])"
_HITS = total("atelier_cache_hits_total", "model", _MODEL)
_MISSES = total("atelier_cache_misses_total", "model", _MODEL)

MODEL = Dashboard(
    uid="atelier-model",
    title="Atelier / Model",
    description="One model: who asks it for what, how it does, and which versions serve it.",
    variables=(*WHERE, Variable(name="model", metric="atelier_graph_ready")),
    rows={
        "Requests": [
            Panel(
                title="Requests by version",
                description="A canary has a line of its own.",
                queries=[
                    Query(
                        expr=total("atelier_requests_total", "model, version", _MODEL),
                        legend="{{model}} {{version}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Requests by task",
                description="What the model is asked to do.",
                queries=[
                    Query(
                        expr=total("atelier_requests_total", "model, task", _MODEL),
                        legend="{{model}} {{task}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Requests by code",
                description="By version, so that a bad one shows.",
                queries=[
                    Query(
                        expr=total("atelier_requests_total", "version, code", _MODEL),
                        legend="{{version}} {{code}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
            ),
            Panel(
                title="Median latency by version",
                description="Of requests that succeeded.",
                queries=[
                    Query(
                        expr=quantile(0.5, "atelier_request_seconds", "model, version", _MODEL),
                        legend="{{model}} {{version}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                title="95th percentile by version",
                description="Of requests that succeeded.",
                queries=[
                    Query(
                        expr=quantile(0.95, "atelier_request_seconds", "model, version", _MODEL),
                        legend="{{model}} {{version}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                title="Latencies",
                description="How many requests took how long; an exemplar leads to the trace of one.",
                queries=[
                    Query(
                        expr=total("atelier_request_seconds_bucket", "le", _MODEL),
                        legend="{{le}}",
                    )
                ],
                unit="s",
                kind="heatmap",
            ),
        ],
        "Shared and kept": [
            Panel(
                title="Requests that shared a run",
                description="They asked for the same with the same seed while it was being computed.",
                queries=[
                    Query(
                        expr=total("atelier_requests_shared_total", "model", _MODEL),
                        legend="{{model}}",
                    )
                ],
                unit="reqps",
            ),
            Panel(
                title="Cache hits",
                description="Of the requests that the cache could have answered.",
                queries=[
                    Query(
                        expr=f"{_HITS}\n/ ({_HITS} + {_MISSES} > 0)",
                        legend="{{model}}",
                    )
                ],
                unit="percentunit",
                most=1,
            ),
            Panel(
                title="Cache",
                description="Bytes of results that are kept.",
                queries=[Query(expr=here("atelier_cache_bytes"), legend="{{instance}}")],
                unit="bytes",
            ),
        ],
        "Versions": [
            Panel(
                title="Graphs loaded",
                description="1 where a version of a graph is loaded on a gateway.",
                queries=[
                    Query(
                        expr=f"min by (model, graph, version) ({here('atelier_graph_ready', _MODEL)})",
                        legend="{{graph}} {{version}}",
                    )
                ],
                kind="table",
                width=12,
            ),
            Panel(
                title="Switches",
                description="Times in an hour that requests without a version went over to another one.",
                queries=[
                    Query(
                        expr=f"sum by (model) ({_SWITCHES})",
                        legend="{{model}}",
                    )
                ],
                width=12,
            ),
        ],
    },
)
