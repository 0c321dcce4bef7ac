"""Pods of the gateway, with what kube-state-metrics and the kubelet's cAdvisor say of them."""

from __future__ import annotations

from monitoring.panels import Dashboard, Panel, Query, Variable, ratio

_PODS = 'namespace=~"$namespace", pod=~"$pod"'
_RESTARTS = f"increase(kube_pod_container_status_restarts_total{{{_PODS}}}[1h])"
_SET = 'namespace=~"$namespace", deployment=~"$deployment"'
_CONTAINERS = f'{_PODS}, container!="", container!="POD"'


def _grows(metric: str) -> str:
    """By pod, in a second."""
    return f"sum by (pod) (rate({metric}{{{_CONTAINERS}}}[$__rate_interval]))"


KUBERNETES = Dashboard(
    uid="atelier-kubernetes",
    title="Atelier / Kubernetes",
    description="Pods of the gateway, as Kubernetes sees them. Needs kube-state-metrics and cAdvisor.",
    variables=(
        Variable(name="namespace", metric="kube_deployment_spec_replicas"),
        Variable(name="deployment", metric="kube_deployment_spec_replicas"),
        Variable(name="pod", metric="kube_pod_info"),
    ),
    rows={
        "Replicas": [
            Panel(
                title="Replicas",
                description="Wanted and available.",
                queries=[
                    Query(expr=f"kube_deployment_spec_replicas{{{_SET}}}", legend="{{deployment}} wanted"),
                    Query(
                        expr=f"kube_deployment_status_replicas_available{{{_SET}}}",
                        legend="{{deployment}} available",
                    ),
                ],
            ),
            Panel(
                title="Autoscaler",
                description="What it wants, and the most that it may.",
                queries=[
                    Query(
                        expr='kube_horizontalpodautoscaler_status_desired_replicas{namespace=~"$namespace"}',
                        legend="{{horizontalpodautoscaler}} wants",
                    ),
                    Query(
                        expr='kube_horizontalpodautoscaler_spec_max_replicas{namespace=~"$namespace"}',
                        legend="{{horizontalpodautoscaler}} may",
                    ),
                ],
            ),
            Panel(
                title="Restarts",
                description="In an hour, by pod.",
                queries=[
                    Query(
                        expr=f"sum by (pod) ({_RESTARTS})",
                        legend="{{pod}}",
                    )
                ],
            ),
            Panel(
                title="Pods not ready",
                description="Kubernetes sends them no requests.",
                queries=[
                    Query(
                        expr=f'sum by (pod) (kube_pod_status_ready{{{_PODS}, condition="false"}})',
                        legend="{{pod}}",
                    )
                ],
            ),
            Panel(
                title="Why containers wait",
                description="ImagePullBackOff, CrashLoopBackOff and the like.",
                queries=[
                    Query(
                        expr=f"sum by (pod, reason) (kube_pod_container_status_waiting_reason{{{_PODS}}})",
                        legend="{{pod}} {{reason}}",
                    )
                ],
                kind="table",
            ),
            Panel(
                title="Pods that cannot be placed",
                description="For want of a GPU, of memory, or of a node that is tolerated.",
                queries=[
                    Query(expr=f"sum(kube_pod_status_unschedulable{{{_PODS}}}) or vector(0)", legend="pods")
                ],
            ),
        ],
        "Resources": [
            Panel(
                title="CPU",
                description="Cores in use, by pod.",
                queries=[
                    Query(
                        expr=_grows("container_cpu_usage_seconds_total"),
                        legend="{{pod}}",
                    )
                ],
            ),
            Panel(
                title="CPU held back",
                description="Share of periods in which its limit stopped it: raise that, or lower instances.",
                queries=[
                    Query(
                        expr=ratio(
                            _grows("container_cpu_cfs_throttled_periods_total"),
                            _grows("container_cpu_cfs_periods_total"),
                        ),
                        legend="{{pod}}",
                    )
                ],
                unit="percentunit",
            ),
            Panel(
                title="Memory of the limit",
                description="At 100% the container is killed.",
                queries=[
                    Query(
                        expr=f"sum by (pod) (container_memory_working_set_bytes{{{_CONTAINERS}}})\n"
                        "/ sum by (pod)\n"
                        f'  (kube_pod_container_resource_limits{{{_PODS}, resource="memory"}})',
                        legend="{{pod}}",
                    )
                ],
                unit="percentunit",
            ),
        ],
        "Load": [
            Panel(
                title="Requests by pod",
                description="Uneven where clients hold on to one connection: use the headless Service.",
                queries=[
                    Query(
                        expr=f"sum by (pod) (rate(atelier_requests_total{{{_PODS}}}[$__rate_interval]))",
                        legend="{{pod}}",
                    )
                ],
                unit="reqps",
                kind="stacked",
                width=12,
            ),
            Panel(
                title="Rows that wait, by pod",
                description="What the autoscaler looks at.",
                queries=[Query(expr=f"sum by (pod) (atelier_rows_pending{{{_PODS}}})", legend="{{pod}}")],
                width=12,
            ),
        ],
    },
)
