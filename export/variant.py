"""A model in lower precision, as a model of its own beside the float32 one: `digits_unet_int8`.

The error against torch, on inputs that the graphs really meet, is measured and bounded, and so is the speed
against float32 measured in the same run; `export.comparison` does the same for the quality of samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidGraph,
)
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as NotImplementedByRuntime,
)
from torch import Tensor

from export.calibration import Inputs, Part, real_inputs
from export.checked import Checks, Exported, allow_unstable
from export.onnx import ExportError, OnnxGraph
from export.precision import Activations, reduce
from export.speed import rows_per_second
from export.validate import POOL, open_session, stability_sizes, stable_among
from serving.manifest import Manifest
from serving.manifest.acceleration import Precision
from training.data import DataError, Splits
from training.data.open import open_data

LARGEST_ERRORS: Mapping[Precision, float] = {"float16": 0.01, "bfloat16": 0.05, "int8": 0.15}
"""Largest error that a variant may show, unless told otherwise: root mean square, as a share of the
output's."""

SPEED_ROWS = 16
"""Rows of the batches at which speeds are compared."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What was asked for."""

    precision: Precision
    """What the arithmetic is to be done in."""
    activations: Activations
    """Of int8: `uint8` for CPUs, `int8` for TensorRT."""
    largest_error: float
    """Bound of the error."""


def renamed(manifests: Sequence[Manifest], model: str, precision: Precision) -> list[Manifest]:
    """The manifests of the variant, which is called `model`."""
    return [
        dataclasses.replace(
            manifest,
            graph=model if len(manifests) == 1 else f"{model}_{manifest.role}",
            model=model,
            metadata={**manifest.metadata, "precision": precision, "variant_of": manifest.model},
        )
        for manifest in manifests
    ]


def reduced(
    manifests: Sequence[Manifest], exported: Sequence[Exported], reduction: Reduction, checks: Checks
) -> list[Exported]:
    """The graphs in lower precision; those that have nothing to compute in it stay as they are.

    Raises `ExportError` where an error is above its bound, where no runtime here computes in that precision,
    or where no graph has anything to gain.
    """
    sessions = [open_session(one.model) for one in exported]
    parts = [
        Part(manifest=manifest, session=session)
        for manifest, session in zip(manifests, sessions, strict=True)
    ]
    data = _data(manifests)
    done = checks.start("inputs along sampling trajectories", 2)
    calibration = real_inputs(parts, data, seed=0)
    done()
    held_out = real_inputs(parts, data, seed=1)
    done()
    result = []
    for manifest, one, session in zip(manifests, exported, sessions, strict=True):
        model = reduce(one.model, reduction.precision, calibration.get(manifest.role), reduction.activations)
        if model == one.model:
            result.append(one)
            continue
        inputs = held_out.get(manifest.role)
        if inputs is None:
            raise ExportError(
                f"graph {manifest.role!r} takes images, and its data set {manifest.metadata.get('data')!r} "
                "cannot be opened: export on a machine that has it"
            )
        result.append(_checked(one, model, session, inputs, manifest.role, reduction, checks))
    if all(new is old for new, old in zip(result, exported, strict=True)):
        raise ExportError(
            f"nothing in this model is computed in {reduction.precision}: its graphs have too few "
            "convolutions and linear layers; serve it in float32"
        )
    return result


def relative_error(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """Root mean square of the difference, as a share of that of what is expected; the worst output's."""
    return max(
        float(
            np.sqrt(np.mean((a.astype(np.float64) - b) ** 2))
            / max(np.sqrt(np.mean(a.astype(np.float64) ** 2)), 1e-12)
        )
        for a, b in zip(expected, found, strict=True)
    )


def _checked(
    original: Exported,
    model: bytes,
    float32: onnxruntime.InferenceSession,
    inputs: Inputs,
    role: str,
    reduction: Reduction,
    checks: Checks,
) -> Exported:
    """A graph in lower precision that is within its bound, with what was measured of it."""
    assert original.onnx is not None, "a variant is made of a run"
    sizes = stability_sizes(checks.max_rows)
    done = checks.start(f"{role}: {reduction.precision}", len(sizes) + 2)
    session = _session(model, inputs, role, reduction.precision)
    expected, found = _torch(original.onnx, inputs), session.run(None, dict(inputs))
    error = relative_error(expected, found)
    done()
    if not error <= reduction.largest_error:
        raise ExportError(
            f"graph {role!r} in {reduction.precision} is {error:.2g} away from torch on inputs that it "
            f"really meets (root mean square, as a share of the output's), above the bound "
            f"{reduction.largest_error:g}: keep it in float32, or allow it with --max-error"
        )
    pool = {name: values[:POOL] for name, values in inputs.items()}
    min_rows = stable_among(session, pool, sizes, done=done)
    allow_unstable(role, min_rows, checks)
    batch = {name: values[:SPEED_ROWS] for name, values in inputs.items()}
    before, after = rows_per_second([(float32, batch), (session, batch)])
    done()
    record = dataclasses.replace(
        original.record,
        sha256=hashlib.sha256(model).hexdigest(),
        max_abs_error=max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True)),
        relative_error=round(error, 6),
        probe=None,
        min_rows=min_rows or 1,
        precision=reduction.precision,
        speedup=round(after / before, 3),
    )
    return Exported(
        model=model,
        nodes=len(onnx.load_from_string(model).graph.node),
        record=record,
        stable=min_rows is not None,
        onnx=original.onnx,
    )


def _session(model: bytes, inputs: Inputs, role: str, precision: Precision) -> onnxruntime.InferenceSession:
    """The graph on the CPU, or a word on what runs it."""
    try:
        session = open_session(model)
        session.run(None, {name: values[:2] for name, values in inputs.items()})
    except (Fail, InvalidGraph, NotImplementedByRuntime, RuntimeError) as error:
        raise ExportError(
            f"graph {role!r} in {precision} does not run on this CPU ({_first_line(error)}), so that it can "
            "be neither compared nor served by the embedded engine here: take --precision float16 or int8, "
            f"or for a GPU --accelerate tensorrt --accelerate-precision {precision}"
        ) from error
    return session


def _torch(exported: OnnxGraph, inputs: Inputs) -> list[NDArray[Any]]:
    arguments = [torch.from_numpy(np.ascontiguousarray(inputs[spec.name])) for spec in exported.graph.inputs]
    with torch.inference_mode():
        result = exported.module(*arguments)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    return [output.numpy() for output in outputs]


def _data(manifests: Sequence[Manifest]) -> Splits | None:
    """The training data, where a graph takes images and they can be had."""
    if all(manifest.input("image") is None for manifest in manifests):
        return None
    known = manifests[0].metadata
    try:
        return open_data(known["data"], **json.loads(known.get("data_options", "{}")))
    except (DataError, KeyError):
        return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]
