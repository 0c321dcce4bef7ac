"""The engine's statistics as the protocol's ModelStatistics."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2

from serving.batching.statistics import Duration, GraphStatistics, Phases


def to_message(name: str, version: int, counted: GraphStatistics) -> Any:
    """ModelStatistics of one version of a graph."""
    message = service_pb2.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=int(1e3 * counted.last),
        inference_count=counted.rows,
        execution_count=counted.batches,
        inference_stats=service_pb2.InferStatistics(
            success=_duration(counted.success),
            fail=_duration(counted.fail),
            queue=_duration(counted.queue),
            **_phases(counted.phases),
            cache_hit=service_pb2.StatisticDuration(),
            cache_miss=service_pb2.StatisticDuration(),
        ),
    )
    for rows, phases in sorted(counted.by_rows.items()):
        message.batch_stats.add(batch_size=rows, **_phases(phases))
    return message


def _phases(phases: Phases) -> dict[str, Any]:
    return {
        "compute_input": _duration(phases.join),
        "compute_infer": _duration(phases.infer),
        "compute_output": _duration(phases.split),
    }


def _duration(duration: Duration) -> Any:
    return service_pb2.StatisticDuration(count=duration.count, ns=round(1e9 * duration.seconds))
