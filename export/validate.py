"""Whether an exported graph computes what torch computes, and the same for a row in any company.

Two checks, both on random inputs drawn from what the graph declares: parity with torch at several batch
sizes (and image sizes, where they are dynamic) within an absolute tolerance, and *row stability*: under
onnxruntime on the CPU a row's bytes are the same alone and inside batches, wherever it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from torch import Tensor
from torch.overrides import TorchFunctionMode

from export.onnx import ExportError, OnnxGraph, row_shape
from export.probes import open_session as open_session
from training.family import Graph, GraphTensor

TOLERANCE = 1e-4
"""Largest absolute difference to torch in float32 that an export may show."""

BATCH_SIZES = (1, 2, 3, 8, 17)
"""Rows at which an export is compared with torch, besides the most that the manifest allows."""

STABLE_SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 24, 32)
"""Sizes of the batches in which a row must come out the same."""

TIE = 1e-3
"""Distance from a half within which two correct computations may round apart."""

POOL = 33
"""Rows that the batches of the stability check are drawn from."""

Tensors = Mapping[str, NDArray[Any]]


def draw(graph: Graph, rows: int, size: tuple[int, int], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random rows for the inputs: ids below `high`, images uniform, noise levels over the schedule, all else
    standard normal."""
    return {
        tensor.name: _draw(tensor, graph, (rows, *row_shape(tensor, size)), rng) for tensor in graph.inputs
    }


def _draw(
    tensor: GraphTensor, graph: Graph, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    if tensor.dtype == torch.int64:
        if tensor.high is None:
            raise ExportError(f"graph {graph.role!r}: input {tensor.name!r} is int64 and declares no `high`")
        return rng.integers(0, tensor.high, shape, dtype=np.int64)
    if tensor.name == "noise_level" and graph.sampling is not None:
        return rng.uniform(*noise_level_range(graph.sampling), shape).astype(np.float32)
    if tensor.name == "image":
        return rng.uniform(-1, 1, shape).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def noise_level_range(sampling: Mapping[str, Any]) -> tuple[float, float]:
    """Least and greatest `noise_level` that samplers feed a denoiser: c_noise of its schedule's ends."""
    schedule, prediction = sampling["schedule"], sampling["parameterization"]["prediction"]
    ends = (schedule["sigma_min"], schedule["sigma_max"])
    if prediction == "edm":
        return math.log(ends[0]) / 4, math.log(ends[1]) / 4
    if prediction == "flow":
        return ends[0] / (1 + ends[0]), ends[1] / (1 + ends[1])
    return 0.0, schedule.get("timesteps", 1000) - 1.0


def max_abs_error(
    exported: OnnxGraph,
    session: onnxruntime.InferenceSession,
    *,
    max_rows: int,
    size: tuple[int, int],
    tolerance: float = TOLERANCE,
    done: Callable[[], None] = lambda: None,
) -> float:
    """Largest absolute difference to torch over all outputs, batches and sizes.

    A graph that rounds (to the grey levels of its data) is compared in the rows where torch rounds nothing
    near a half. Raises `ExportError` with graph, output, rows, error and tolerance where it is above that.
    """
    rng = np.random.default_rng(0)
    worst, compared = 0.0, 0
    for rows, (height, width) in parity_cases(exported.graph, max_rows=max_rows, size=size):
        inputs = draw(exported.graph, rows, (height, width), rng)
        expected, certain = _torch_outputs(exported, inputs)
        compared += int(certain.sum())
        case = f"{rows} rows" + (f" of {height}×{width}" if _is_dynamic(exported.graph) else "")
        actual = _run(session, inputs, f"graph {exported.graph.role!r}, {case}")
        for tensor, left, right in zip(exported.graph.outputs, actual, expected, strict=True):
            where = f"graph {exported.graph.role!r}, output {tensor.name!r}, {case}"
            if left.shape != right.shape:
                raise ExportError(
                    f"{where}: onnxruntime gives shape {list(left.shape)} and torch {list(right.shape)}"
                )
            difference = np.abs(left.astype(np.float64) - right.astype(np.float64))
            error = float(np.max(difference[certain], initial=0.0))
            if not error <= tolerance:
                raise ExportError(
                    f"{where}: the largest difference to torch is {error:.2e}, above the tolerance "
                    f"{tolerance:.0e}; look for operations in low precision, or allow it with --tolerance"
                )
            worst = max(worst, error)
        done()
    if not compared:
        raise ExportError(
            f"graph {exported.graph.role!r} rounds near a half in every row, so that no row can be compared: "
            "round in fewer places"
        )
    return worst


def parity_cases(
    graph: Graph, *, max_rows: int, size: tuple[int, int]
) -> Sequence[tuple[int, tuple[int, int]]]:
    """Rows and (height, width) of the batches to compare.

    Every batch size at the training size, and other sizes at two rows where height and width are dynamic.
    """
    rows = [*(n for n in BATCH_SIZES if n < max_rows), max_rows]
    cases = [(n, size) for n in rows]
    dynamic = [tensor.multiple_of for tensor in graph.inputs if -1 in tensor.shape]
    if dynamic:
        unit, (height, width) = math.lcm(*dynamic), size
        others = ((height + unit, width), (height, width + 3 * unit), (2 * height, 2 * width + unit))
        cases += [(min(2, max_rows), other) for other in others]
    return cases


def _is_dynamic(graph: Graph) -> bool:
    return any(-1 in tensor.shape for tensor in graph.inputs)


def _run(session: onnxruntime.InferenceSession, inputs: Tensors, where: str) -> list[NDArray[Any]]:
    try:
        outputs: list[NDArray[Any]] = session.run(None, dict(inputs))
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise ExportError(f"{where}: onnxruntime cannot compute what torch does: {error}") from error
    return outputs


def _torch_outputs(exported: OnnxGraph, inputs: Tensors) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
    """What torch computes, and for each row whether all its roundings are certain."""
    arguments = [torch.from_numpy(inputs[tensor.name]) for tensor in exported.graph.inputs]
    with torch.no_grad(), _Roundings(len(arguments[0])) as roundings:
        result = exported.module(*arguments)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    return [output.numpy() for output in outputs], roundings.certain


class _Roundings(TorchFunctionMode):
    """Sees what is rounded, and notes the rows in which something is rounded near a half."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.certain = np.ones(rows, dtype=np.bool_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.round, Tensor.round):
            distance = (args[0] - args[0].floor() - 0.5).abs().flatten(1)
            self.certain &= (distance > TIE).all(dim=1).numpy()
        return func(*args, **(kwargs or {}))


def stable_rows(
    graph: Graph,
    session: onnxruntime.InferenceSession,
    *,
    max_rows: int,
    size: tuple[int, int],
    done: Callable[[], None] = lambda: None,
) -> int | None:
    """The rows from which a batch gives each row of random inputs the same bytes in any company."""
    inputs = draw(graph, min(POOL, max_rows), size, np.random.default_rng(0))
    return stable_among(session, inputs, stability_sizes(max_rows), done=done)


def stable_among(
    session: onnxruntime.InferenceSession,
    inputs: Tensors,
    sizes: Sequence[int],
    *,
    done: Callable[[], None] = lambda: None,
) -> int | None:
    """The rows from which batches of these sizes give each of the rows of `inputs` the same bytes.

    1 where a row alone already does, 2 where a single row has to be padded to two, None where neither holds.
    """
    rng = np.random.default_rng(0)
    pool = len(next(iter(inputs.values())))
    reference = session.run(None, dict(inputs))
    stable_from = 1
    for rows in sizes:
        for places in _companies(rows, pool, rng):
            outputs = session.run(None, {name: values[places] for name, values in inputs.items()})
            if not all(_same_bytes(a, b[places]) for a, b in zip(outputs, reference, strict=True)):
                stable_from = rows + 1
        done()
    return stable_from if stable_from <= 2 else None


def stability_sizes(max_rows: int) -> list[int]:
    """The batch sizes of the stability check."""
    return [rows for rows in STABLE_SIZES if rows <= min(POOL, max_rows)]


def _companies(rows: int, pool: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Which rows of the pool form a batch: the first, the last in reverse, and rows drawn at random."""
    yield np.arange(rows)
    yield np.arange(pool - 1, pool - 1 - rows, -1)
    yield rng.permutation(pool)[:rows]


def _same_bytes(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.tobytes() == right.tobytes()
