"""One graph of a family as a self-contained ONNX file: the same bytes for the same weights.

The file holds its weights as initialisers and nothing of where it was made: torch's exporter leaves
source paths and stack traces in `metadata_props`, and these are stripped.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training.family import Graph, GraphTensor

OPSET = 20
"""From 21 on GroupNormalization is expanded into primitives, a third slower on a CPU at batch 1."""

LARGEST_CONSTANT = 64
"""Elements above which a Constant node becomes an initialiser, where one looks for weights."""

_ELEMENT_TYPES = {torch.float32: onnx.TensorProto.FLOAT, torch.int64: onnx.TensorProto.INT64}

# What the exporter says of its own inner workings, and of packages that no graph here needs.
_CHATTER = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"# The axis name: .* will not be used, since it shares the same shape constraints",
)
_CHATTERING_LOGGER = "torch.onnx._internal.exporter._registration"


class ExportError(RuntimeError):
    """A graph that cannot be exported as declared: names the graph and the remedy."""


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """A graph as ONNX, checked."""

    graph: Graph
    """What was exported."""
    module: nn.Module
    """The module as exported, on the CPU and in eval mode: what the file is compared with."""
    model: bytes
    """The ONNX file."""
    nodes: int
    """Number of nodes."""

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.model).hexdigest()


def export_graph(graph: Graph, *, size: tuple[int, int]) -> OnnxGraph:
    """The graph as ONNX with dynamic rows and, where an axis is -1, dynamic height and width.

    `size` is a height and width that the module takes where its axes are dynamic. Raises `ExportError`
    where torch cannot export the module, or where what it gives is not what the graph declares.
    """
    module = _plain(graph.module)
    arguments = tuple(_example(tensor, size) for tensor in graph.inputs)
    _check_outputs(graph, module, arguments)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in graph.inputs],
                output_names=[tensor.name for tensor in graph.outputs],
                dynamic_shapes=tuple(_dynamic_axes(tensor) for tensor in graph.inputs),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"graph {graph.role!r} does not export: {_first_cause(error)}; write its forward without sizes "
            "that depend on the example, and without operations that ONNX lacks"
        ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    _lift_constants(model.graph)
    _declare(model.graph, graph)
    _check(model, graph)
    return OnnxGraph(
        graph=graph,
        module=module,
        model=model.SerializeToString(deterministic=True),
        nodes=len(model.graph.node),
    )


def _plain(module: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode, its parametrisations (spectral norm) folded into plain weights."""
    module = copy.deepcopy(module).to("cpu", torch.float32).eval()
    for part in module.modules():
        if parametrize.is_parametrized(part):
            _fold(part)
    return module.requires_grad_(False)


def _fold(part: nn.Module) -> None:
    """`remove_parametrizations` changes the class, which a copy shares with its original: this does not."""
    assert isinstance(part.parametrizations, nn.ModuleDict)
    weights = {name: getattr(part, name).detach().clone() for name in part.parametrizations}
    part.__class__ = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    for name, weight in weights.items():
        part.register_parameter(name, nn.Parameter(weight))


def _example(tensor: GraphTensor, size: tuple[int, int]) -> Tensor:
    if tensor.dtype not in _ELEMENT_TYPES:
        raise ExportError(f"input {tensor.name!r} is {tensor.dtype}: declare it torch.float32 or torch.int64")
    # Two rows, as torch specialises a graph to sizes 0 and 1.
    return torch.zeros((2, *row_shape(tensor, size)), dtype=tensor.dtype)


def row_shape(tensor: GraphTensor, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of a row where the dynamic axes of images have this height and width."""
    if -1 not in tensor.shape:
        return tensor.shape
    if len(tensor.shape) != 3 or tensor.shape[0] == -1:
        raise ExportError(
            f"tensor {tensor.name!r} has shape {list(tensor.shape)}: of a row only the height and width of "
            "an image [channels, height, width] can be dynamic"
        )
    channels, *axes = tensor.shape
    return (channels, *(given if axis == -1 else axis for axis, given in zip(axes, size, strict=True)))


def _dynamic_axes(tensor: GraphTensor) -> dict[int, Any]:
    axes: dict[int, Any] = {0: torch.export.Dim("rows")}
    for axis, length in enumerate(tensor.shape, start=1):
        if length == -1:
            unit = torch.export.Dim("height" if axis == 2 else "width")
            axes[axis] = unit if tensor.multiple_of == 1 else tensor.multiple_of * unit
    return axes


def _check_outputs(graph: Graph, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """Run the module once: what it gives must have the declared number, shapes and element types."""
    with torch.no_grad():
        result = module(*arguments)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    if len(outputs) != len(graph.outputs):
        raise ExportError(
            f"graph {graph.role!r} declares {len(graph.outputs)} outputs, its module returns {len(outputs)}"
        )
    for declared, output in zip(graph.outputs, outputs, strict=True):
        rows, *shape = output.shape
        fits = rows == 2 and len(shape) == len(declared.shape)
        fits = fits and all(d in (-1, given) for d, given in zip(declared.shape, shape, strict=True))
        if not fits or output.dtype != declared.dtype:
            raise ExportError(
                f"graph {graph.role!r} declares output {declared.name!r} as {declared.dtype} "
                f"{list(declared.shape)} a row, and for 2 rows its module gives {output.dtype} "
                f"{list(output.shape)}"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's chatter; every other warning passes."""
    logger = logging.getLogger(_CHATTERING_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _CHATTER:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _strip(model: onnx.ModelProto) -> None:
    """Remove metadata, documentation and inferred shapes, here and in sub-graphs: they name this machine."""

    def clear(message: Any) -> None:
        for name in ("metadata_props", "doc_string"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)

    def visit(graph: onnx.GraphProto) -> None:
        clear(graph)
        graph.ClearField("value_info")
        for message in (*graph.input, *graph.output, *graph.initializer):
            clear(message)
        for node in graph.node:
            clear(node)
            for attribute in node.attribute:
                clear(attribute)
                if attribute.type == onnx.AttributeProto.GRAPH:
                    visit(attribute.g)

    clear(model)
    visit(model.graph)
    for function in model.functions:
        clear(function)
        for node in function.node:
            clear(node)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Make initialisers of the Constant nodes that hold weights."""
    kept = []
    for node in graph.node:
        value = node.attribute[0] if node.op_type == "Constant" else None
        if value is not None and value.name == "value" and _elements(value.t) > LARGEST_CONSTANT:
            weight = graph.initializer.add()
            weight.CopyFrom(value.t)
            weight.name = node.output[0]
        else:
            kept.append(node)
    nodes = [copy.deepcopy(node) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for axis in tensor.dims:
        count *= axis
    return count


def _declare(onnx_graph: onnx.GraphProto, graph: Graph) -> None:
    """Write inputs and outputs as declared, with plain names for the dynamic axes."""
    for infos, tensors in ((onnx_graph.input, graph.inputs), (onnx_graph.output, graph.outputs)):
        names = [info.name for info in infos]
        if names != [tensor.name for tensor in tensors]:
            raise ExportError(
                f"graph {graph.role!r} declares {[tensor.name for tensor in tensors]} and its ONNX graph has "
                f"{names}: an output that is an input passed through cannot have a name of its own"
            )
        for info, tensor in zip(infos, tensors, strict=True):
            exported = info.type.tensor_type.shape.dim
            for axis, length in enumerate((-1, *tensor.shape)):
                if length == -1 and exported[axis].HasField("dim_value"):
                    raise ExportError(
                        f"graph {graph.role!r}: axis {axis} of {tensor.name!r} must be dynamic and comes out "
                        f"fixed at {exported[axis].dim_value}; write its forward without sizes that depend "
                        "on the example"
                    )
            shape: list[int | str] = ["rows"]
            for axis, length in enumerate(tensor.shape):
                if length != -1:
                    shape.append(length)
                elif infos is onnx_graph.input:
                    shape.append("height" if axis == 1 else "width")
                else:
                    shape.append(f"{tensor.name}_height" if axis == 1 else f"{tensor.name}_width")
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, _ELEMENT_TYPES[tensor.dtype], shape))


def _check(model: onnx.ModelProto, graph: Graph) -> None:
    """Check the model in full, with strict shape inference, and that it stands by itself."""
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"graph {graph.role!r} exports to ONNX that does not check: {error}") from error
    if model.functions:
        names = ", ".join(function.name for function in model.functions)
        raise ExportError(f"graph {graph.role!r} holds local functions ({names}), which runtimes may lack")
    outside = [weight.name for weight in model.graph.initializer if weight.external_data]
    inputs = {info.name for info in model.graph.input}
    if outside or inputs & {weight.name for weight in model.graph.initializer}:
        raise ExportError(f"graph {graph.role!r} does not hold its weights as initialisers inside the file")
