"""A float32 graph in lower precision: float16, bfloat16, or int8 with calibrated scales.

Inputs and outputs stay float32 in all of them, so that a variant takes the place of its original.

- float16: everything but the operations in which sums or exponents would lose digits.
- bfloat16: convolutions and matrix products alone, between casts; their results are float32 again.
- int8: convolutions and linear layers, weights by channel, activations between the 0.01 and 99.99
  percentiles of what they are on real inputs (static quantisation, Jacob et al. 2018, as QuantizeLinear and
  DequantizeLinear). The first and the last of them stay float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.onnx import ExportError
from serving.manifest.acceleration import Precision

Activations = Literal["uint8", "int8"]

KEPT_FLOAT32 = (
    *("InstanceNormalization", "GroupNormalization", "LayerNormalization", "Softmax"),
    *("Exp", "Log", "Pow", "Sqrt", "ReduceMean", "ReduceSum", "ReduceL2", "Sin", "Cos", "Round"),
)
"""Operations that float16 graphs do in float32, besides those that runtimes lack in float16."""

QUANTISED = ("Conv", "Gemm")
"""Operations that int8 graphs do in int8."""

BFLOAT16_OPSET = 22
"""The first in which convolutions take bfloat16."""

_IN_BFLOAT16 = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CALIBRATION_ROWS = 16
_PERCENTILE = 99.99

Inputs = Mapping[str, NDArray[Any]]


def reduce(model: bytes, precision: Precision, inputs: Inputs | None, activations: Activations) -> bytes:
    """The graph in that precision, or as it is where nothing in it would be computed in it.

    `inputs` are rows that int8 is calibrated on. `activations` of int8 are unsigned for CPUs, which compute
    signed ones slower than float32, and signed and symmetric for TensorRT, which takes no others.
    """
    match precision:
        case "float16":
            return to_float16(model)
        case "bfloat16":
            return to_bfloat16(model)
        case "int8":
            if inputs is None:
                raise ExportError("int8 is calibrated on real inputs, and there are none for this graph")
            return to_int8(model, inputs, activations)
        case "float32":
            return model


def to_float16(model: bytes) -> bytes:
    """The graph in float16 by onnxconverter-common."""
    from onnxconverter_common import float16

    parsed = onnx.load_from_string(model)
    if not _nodes(parsed, _IN_BFLOAT16):
        return model
    with warnings.catch_warnings():
        # Weights below the least number of float16 become it.
        warnings.filterwarnings("ignore", message="the float32 number .* will be truncated")
        converted = float16.convert_float_to_float16(
            parsed, keep_io_types=True, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
        )
    return _finished(converted, "float16")


def to_bfloat16(model: bytes) -> bytes:
    """The graph with its products in bfloat16, weights included, and casts around them."""
    parsed = onnx.version_converter.convert_version(onnx.load_from_string(model), BFLOAT16_OPSET)
    graph = parsed.graph
    if not _nodes(parsed, _IN_BFLOAT16):
        return model
    weights = {weight.name: weight for weight in graph.initializer}
    nodes, cast, lowered = [], {}, {}
    for node in graph.node:
        if node.op_type not in _IN_BFLOAT16:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if not name:
                continue
            low = f"{name}_bfloat16"
            if name in weights:
                lowered[low] = weights[name]
            elif name not in cast:
                nodes.append(
                    onnx.helper.make_node("Cast", [name], [low], f"{low}_cast", to=onnx.TensorProto.BFLOAT16)
                )
                cast[name] = low
            node.input[place] = low
        name = node.output[0]
        node.output[0] = f"{name}_low"
        nodes.append(node)
        nodes.append(
            onnx.helper.make_node(
                "Cast", [node.output[0]], [name], f"{name}_raise", to=onnx.TensorProto.FLOAT
            )
        )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    for name, weight in lowered.items():
        graph.initializer.append(_bfloat16_weight(name, weight))
    _drop_unused_weights(graph)
    return _finished(parsed, "bfloat16")


def to_int8(model: bytes, inputs: Inputs, activations: Activations) -> bytes:
    """The graph in int8 by onnxruntime's static quantisation, calibrated on rows of real inputs.

    Weights beside unsigned activations have 7 bits: CPUs without VNNI (or AMX) sum two products in 16 bits,
    where 255 * 64 * 2 still fits and 255 * 127 * 2 is cut off.
    """
    from onnxruntime import quantization

    parsed = onnx.load_from_string(model)
    convolutions = _nodes(parsed, ("Conv",))
    products = _nodes(parsed, QUANTISED)
    sensitive = convolutions or products
    if len(products) <= 2:
        return model
    kind = quantization.QuantType.QUInt8 if activations == "uint8" else quantization.QuantType.QInt8
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        quantization.quantize_static(
            parsed,
            path,
            _reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=[sensitive[0], sensitive[-1]],
            per_channel=True,
            activation_type=kind,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=activations == "uint8",
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options={"ActivationSymmetric": activations == "int8", "CalibPercentile": _PERCENTILE},
        )
        return _finished(onnx.load(path), "int8")


def _reader(inputs: Inputs) -> Any:
    """Batches of the rows, as onnxruntime's calibrator asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    count = len(next(iter(inputs.values())))
    starts = range(0, max(count - _CALIBRATION_ROWS, 0) + 1, _CALIBRATION_ROWS)
    batches = [
        {name: values[start : start + _CALIBRATION_ROWS] for name, values in inputs.items()}
        for start in starts
    ]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        """Every batch once."""

        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> Inputs | None:
            """The next batch; None at the end."""
            return next(self._left, None)

    return Reader()


def _nodes(model: onnx.ModelProto, kinds: tuple[str, ...]) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type in kinds]


def _bfloat16_weight(name: str, weight: onnx.TensorProto) -> onnx.TensorProto:
    """A weight rounded to the nearest bfloat16."""
    import ml_dtypes

    values = onnx.numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16)
    return onnx.helper.make_tensor(
        name, onnx.TensorProto.BFLOAT16, values.shape, values.view(np.uint16).tobytes(), raw=True
    )


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [weight for weight in graph.initializer if weight.name in used]
    copies = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _finished(model: onnx.ModelProto, precision: str) -> bytes:
    """The file, checked, without what the converter says of itself."""
    del model.metadata_props[:]
    model.graph.ClearField("value_info")
    model.graph.ClearField("doc_string")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph in {precision} does not check: {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice and the calibrator's printing."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
