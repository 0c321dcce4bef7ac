"""A TensorRT plan of an exported graph, for the GPU of this machine and this version of TensorRT alone.

The plan stands as `model.plan` beside the `model.onnx` of the same version: the embedded engine and a plain
Triton serve the latter, `tritonserver --model-config-name=tensorrt` the former. Networks are strongly typed,
which is all that TensorRT knows from 11 on: a plan computes in the precision that its ONNX graph holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from export.checked import Exported
from export.onnx import ExportError
from export.validate import draw, open_session
from export.variant import relative_error
from serving.manifest import Manifest, PlanRecord
from serving.manifest.acceleration import Precision, Profile
from training.family import Graph

LARGEST_ERRORS: Mapping[Precision, float] = {
    "float32": 1e-3,
    "float16": 0.02,
    "bfloat16": 0.05,
    "int8": 0.05,
}
"""Largest difference of a plan to the file that it was built from: root mean square, as a share of the
output's."""

Tensors = Mapping[str, NDArray[Any]]


class Runs(Protocol):
    """What computes a graph, as an onnxruntime session does."""

    def run(self, names: Sequence[str] | None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the order of the names, or all in the graph's."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a plan is built with."""

    profile: Profile
    """Shapes that it takes, and is fastest at."""
    workspace_bytes: int = 1 << 30
    """Most GPU memory that the builder may take."""
    timing_cache: Path | None = None
    """File in which timings of kernels are kept from one build to the next."""


def require_tensorrt() -> Any:
    """The `tensorrt` module, where it and a GPU are there; an `ExportError` says what is missing."""
    try:
        import tensorrt
    except ImportError as error:
        raise ExportError(
            "--plan needs the package tensorrt, which is not installed: pip install tensorrt on the machine "
            "with the NVIDIA GPU that is going to serve the plan, or leave --plan out"
        ) from error
    if not torch.cuda.is_available():
        raise ExportError(
            "--plan needs an NVIDIA GPU and a torch that was built for CUDA, and this machine has not both: "
            "export on the machine that is going to serve the plan, or leave --plan out"
        )
    return tensorrt


def built(
    manifest: Manifest, exported: Exported, request: PlanRequest, size: tuple[int, int]
) -> tuple[bytes, PlanRecord]:
    """A plan of a graph and its record; raises `ExportError` where it cannot be built or differs too much."""
    tensorrt = require_tensorrt()
    assert exported.onnx is not None, "a plan is made of a run"
    plan = build(tensorrt, exported.model, manifest, request)
    error = compared(
        Plan(tensorrt, plan),
        open_session(exported.model),
        exported.onnx.graph,
        request.profile,
        size=size,
        precision=exported.record.precision,
    )
    record = PlanRecord(
        sha256=hashlib.sha256(plan).hexdigest(),
        max_abs_error=error,
        tensorrt=tensorrt.__version__,
        gpu=torch.cuda.get_device_name(0),
        profile=request.profile,
    )
    return plan, record


def build(tensorrt: Any, model: bytes, manifest: Manifest, request: PlanRequest) -> bytes:
    """The serialised plan of an ONNX file, for the shapes of one optimisation profile."""
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ExportError(
            f"{manifest.graph}: TensorRT {tensorrt.__version__} cannot read the graph: {errors}; leave "
            "--plan out, and let onnxruntime serve it"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    # Factors rounded to 10 bits would not be the arithmetic that the graph was compared with.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, shapes in profile_shapes(manifest, request.profile).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    cache = config.create_timing_cache(read_timing_cache(request.timing_cache))
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(
            f"{manifest.graph}: TensorRT {tensorrt.__version__} built no plan, and said why above: give it "
            "more memory with --workspace-bytes, or leave --plan out"
        )
    if request.timing_cache:
        request.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def profile_shapes(
    manifest: Manifest, profile: Profile
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Least, usual and greatest shape of every input by name."""
    least, usual, greatest = profile.shapes(manifest.inputs)
    return {spec.name: (least[spec.name], usual[spec.name], greatest[spec.name]) for spec in manifest.inputs}


def read_timing_cache(path: Path | None) -> bytes:
    """What earlier builds left, or nothing."""
    return path.read_bytes() if path is not None and path.is_file() else b""


class Plan:
    """A plan under TensorRT's runtime, its tensors in torch's memory on the GPU."""

    def __init__(self, tensorrt: Any, plan: bytes) -> None:
        self._tensorrt = tensorrt
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ExportError("the plan that TensorRT built does not load again, and it said why above")
        self._context = self._engine.create_execution_context()

    def run(self, names: Sequence[str] | None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the order of the names, or all in the plan's; on a stream of its own, waited for."""
        engine, context = self._engine, self._context
        tensors = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        given = {
            name: torch.from_numpy(np.ascontiguousarray(values)).cuda() for name, values in inputs.items()
        }
        for name, tensor in given.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise ExportError(f"the plan does not take {name} of shape {list(tensor.shape)}")
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = {}
        for name in tensors:
            if engine.get_tensor_mode(name) == self._tensorrt.TensorIOMode.OUTPUT:
                # Graphs are exported with float32 outputs alone.
                outputs[name] = torch.empty(
                    tuple(context.get_tensor_shape(name)), dtype=torch.float32, device="cuda"
                )
                context.set_tensor_address(name, outputs[name].data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        if not context.execute_async_v3(stream.cuda_stream):
            raise ExportError("the plan does not run, and TensorRT said why above")
        stream.synchronize()
        return [outputs[name].cpu().numpy() for name in names or outputs]


def compared(
    plan: Runs,
    original: Runs,
    graph: Graph,
    profile: Profile,
    *,
    size: tuple[int, int],
    precision: Precision,
) -> float:
    """Largest absolute difference of a plan to the file that it was built from, over the rows of its profile.

    Raises `ExportError` where the root mean square of the difference is above the bound of the precision.
    """
    rng = np.random.default_rng(0)
    names = [tensor.name for tensor in graph.outputs]
    worst = 0.0
    for rows in sorted(set(profile.rows)):
        inputs = draw(graph, rows, size, rng)
        expected, found = original.run(names, inputs), plan.run(names, inputs)
        error = relative_error(expected, found)
        if not error <= LARGEST_ERRORS[precision]:
            raise ExportError(
                f"graph {graph.role!r}, {rows} rows: the plan is {error:.2g} away from the graph that it was "
                f"built from (root mean square, as a share of the output's), above "
                f"{LARGEST_ERRORS[precision]:g}: leave --plan out, and let onnxruntime serve the graph"
            )
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True)))
    return worst
