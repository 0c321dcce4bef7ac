"""`atelier export --accelerate`: what the configuration of a graph says to Triton on a GPU.

The usual rows of a profile are those from which a larger batch gains nothing, measured on the GPU of the
machine that exports; on a machine without they are what `--usual-rows` says, else the most rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime

from export.onnx import ExportError, OnnxGraph
from export.speed import buckets, enough_rows, rows_per_second
from export.validate import draw
from serving.manifest.acceleration import (
    PRECISIONS,
    Acceleration,
    AccelerationError,
    Accelerator,
    Precision,
    Profile,
)
from training.family import Graph

CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The batches that a graph is going to be called with on a GPU."""

    least: int
    """Rows that a batch is padded to."""
    most: int
    """Rows that a call may have."""
    size: tuple[int, int]
    """Height and width that the model was trained at."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `atelier export` that are about GPUs."""
    add = parser.add_argument_group("GPUs").add_argument
    add(
        "--accelerate",
        choices=get_args(Accelerator),
        help="say in the configuration how Triton's onnxruntime runs the graphs on a GPU",
    )
    add(
        "--accelerate-precision",
        choices=PRECISIONS,
        help="what TensorRT may compute in (default: what the graphs hold)",
    )
    add("--usual-rows", type=int, metavar="ROWS", help="rows that TensorRT is to be fastest at")
    add(
        "--sides",
        metavar="A,B,C",
        help="least, usual and greatest height and width, for images of any size (default: half, once and "
        "four times what was trained on)",
    )
    add("--gpu-instances", type=int, default=0, metavar="N", help="demand a GPU, with N instances on each")
    add("--engine-cache", type=Path, metavar="DIR", help="where Triton keeps the engines it has built")
    add(
        "--plan",
        action="store_true",
        help="build a TensorRT plan too, for the GPU of this machine (tritonserver "
        "--model-config-name=tensorrt serves it)",
    )
    add("--timing-cache", type=Path, metavar="FILE", help="keep the timings of building plans in this file")
    add("--workspace-bytes", type=int, metavar="BYTES", help="GPU memory for building (default: 1 GiB)")


def acceleration(
    options: argparse.Namespace, exported: OnnxGraph, batches: Batches, precision: Precision
) -> Acceleration | None:
    """What was asked for with the options; None where nothing was."""
    if options.accelerate is None:
        given = [
            name
            for name in ("accelerate_precision", "gpu_instances", "engine_cache", "workspace_bytes")
            if getattr(options, name) and not (options.plan and name == "workspace_bytes")
        ]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise ExportError(f"{flag} says nothing without --accelerate: add --accelerate tensorrt or cuda")
        return None
    further = {
        name: value
        for name, value in (
            ("engine_cache", options.engine_cache and options.engine_cache.as_posix()),
            ("workspace_bytes", options.workspace_bytes),
        )
        if value is not None
    }
    computed = options.accelerate_precision or (precision if options.accelerate == "tensorrt" else "float32")
    try:
        return Acceleration(
            accelerator=options.accelerate,
            precision=computed,
            profile=profile(options, exported, batches),
            instances=options.gpu_instances,
            **further,
        )
    except AccelerationError as error:
        raise ExportError(f"graph {exported.graph.role!r}: {error}") from error


def profile(options: argparse.Namespace, exported: OnnxGraph, batches: Batches) -> Profile:
    """The shapes that TensorRT is to build a graph for."""
    usual, device = options.usual_rows, ""
    if usual is None:
        usual, device = measured_rows(exported, batches)
    if not batches.least <= usual <= batches.most:
        raise ExportError(
            f"--usual-rows {usual} is not between {batches.least} and {batches.most}, which the graph "
            f"{exported.graph.role!r} is called with"
        )
    return Profile(
        rows=(batches.least, usual, batches.most),
        sides=_sides(options.sides, exported.graph, batches.size),
        measured_on=device,
    )


def measured_rows(
    exported: OnnxGraph,
    batches: Batches,
    opened: Callable[[bytes], onnxruntime.InferenceSession | None] | None = None,
) -> tuple[int, str]:
    """The fewest rows that the GPU is near its best with, and the GPU; the most rows and '' without one."""
    session = (opened or cuda_session)(exported.model)
    if session is None:
        return batches.most, ""
    rng = np.random.default_rng(0)
    sizes = buckets(batches.least, batches.most)
    contenders = [(session, draw(exported.graph, rows, batches.size, rng)) for rows in sizes]
    rates = dict(zip(sizes, rows_per_second(contenders), strict=True))
    return enough_rows(rates), gpu_name()


def cuda_session(model: bytes) -> onnxruntime.InferenceSession | None:
    """The graph on the GPU, or None where onnxruntime or the machine has none."""
    if CUDA not in onnxruntime.get_available_providers():
        return None
    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model, options, providers=[(CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"]
    )
    return session if session.get_providers()[0] == CUDA else None


def gpu_name() -> str:
    """Name of the first GPU as its driver has it, or `GPU` where torch was built without CUDA."""
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "GPU"


def _sides(given: str | None, graph: Graph, size: tuple[int, int]) -> tuple[int, int, int]:
    units = [tensor.multiple_of for tensor in graph.inputs if -1 in tensor.shape]
    if not units:
        return (0, 0, 0)
    if given is None:
        usual, unit = max(size), max(units)
        return (max(usual // 2 // unit * unit, unit), usual, 4 * usual)
    try:
        least, usual, greatest = (int(part) for part in given.split(","))
    except ValueError as error:
        raise ExportError(f"--sides {given} is not three whole numbers such as 32,64,256") from error
    return (least, usual, greatest)
