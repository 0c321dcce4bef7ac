"""From what a family says of its graphs to the manifests that serving reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from serving.manifest import (
    Dtype,
    Manifest,
    NoiseSchedule,
    Parameterization,
    Sampling,
    TensorSpec,
)
from training.checkpoint import Checkpoint
from training.family import Graph, GraphTensor

_DTYPES: dict[torch.dtype, Dtype] = {torch.float32: "float32", torch.int64: "int64"}


def manifests(
    checkpoint: Checkpoint, graphs: Sequence[Graph], *, model: str, max_batch_size: int
) -> list[Manifest]:
    """A manifest for each graph of a run, without versions.

    A graph is named as its model where it is the only one, else `<model>_<role>`.
    """
    roles = tuple(graph.role for graph in graphs)
    return [
        Manifest(
            graph=model if len(graphs) == 1 else f"{model}_{graph.role}",
            model=model,
            role=graph.role,
            family=checkpoint.family.name,
            tasks=checkpoint.family.tasks,  # type: ignore[arg-type]  # plain text there, checked by Manifest
            roles=roles,
            inputs=tuple(_tensor(tensor) for tensor in graph.inputs),
            outputs=tuple(_tensor(tensor) for tensor in graph.outputs),
            max_batch_size=max_batch_size,
            class_labels=_labels(checkpoint, graphs),
            sampling=None if graph.sampling is None else _sampling(graph.sampling),
            levels=checkpoint.data.levels,
            domains=checkpoint.data.domains,
            metadata=facts(checkpoint),
        )
        for graph in graphs
    ]


def facts(checkpoint: Checkpoint) -> dict[str, str]:
    """What people want to know of a run: its data and their licence, and what it took."""
    data = checkpoint.data
    found = {
        **checkpoint.family.metadata,
        "data": data.name,
        "data_options": json.dumps(dict(data.options or {}), sort_keys=True),
        "data_source": data.source,
        "data_sha256": data.digest,
        "data_images": str(data.count),
        "run": checkpoint.config.name,
        "steps": str(checkpoint.step),
        "batch_size": str(checkpoint.config.batch_size),
        "seed": str(checkpoint.seed),
        "cpu_seconds": f"{checkpoint.cpu_seconds:.0f}",
    }
    return {name: value for name, value in found.items() if value}


def _labels(checkpoint: Checkpoint, graphs: Sequence[Graph]) -> tuple[str, ...]:
    """The data's class labels where some graph of the model asks for a class."""
    asks = any(tensor.name == "class_id" for graph in graphs for tensor in graph.inputs)
    return checkpoint.data.class_labels if asks else ()


def _tensor(tensor: GraphTensor) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        dtype=_DTYPES[tensor.dtype],
        shape=tensor.shape,
        multiple_of=tensor.multiple_of,
    )


def _sampling(values: Mapping[str, Any]) -> Sampling:
    rest = {name: value for name, value in values.items() if name not in ("parameterization", "schedule")}
    return Sampling(
        parameterization=Parameterization(**values["parameterization"]),
        schedule=NoiseSchedule(**values["schedule"]),
        **rest,
    )
