"""Checks of a request against the graph that it asks, in Triton's words, which its clients know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.calls import Tensors
from serving.errors import Code, ServingError, invalid
from serving.manifest import Manifest, TensorSpec
from serving.oip.messages import Content, InferRequest, InputTensor, Place
from serving.oip.tensors import BYTES, DTYPES, byte_size, datatype, from_bytes


def version_number(asked: str) -> int | None:
    """The version that a request names, None where it leaves the choice. INVALID_ARGUMENT for no number."""
    if not asked:
        return None
    if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
        raise invalid(
            "model_version",
            f"invalid model version specified '{asked}', version should be an integral value > 0; "
            f"leave it empty for the newest",
        )
    return int(asked)


def check_outputs(request: InferRequest, manifest: Manifest) -> None:
    """INVALID_ARGUMENT where the request asks for an output that the graph does not have."""
    for wanted in request.outputs:
        if manifest.output(wanted.name) is None:
            raise invalid(
                wanted.name, f"unexpected inference output '{wanted.name}' for model '{manifest.graph}'"
            )


def read_inputs(request: InferRequest, manifest: Manifest, read: Callable[[Place], bytes]) -> Tensors:
    """The inputs as the graph takes them; `read` fetches what lies in shared memory.

    INVALID_ARGUMENT names the tensor at fault.
    """
    by_name = _by_name(request, manifest)
    _check_rows(request, manifest)
    return {spec.name: _read(request, by_name[spec.name], spec, manifest, read) for spec in manifest.inputs}


def _by_name(request: InferRequest, manifest: Manifest) -> dict[str, InputTensor]:
    given: dict[str, InputTensor] = {}
    for tensor in request.inputs:
        if tensor.name in given:
            raise _refused(request, tensor.name, f"input '{tensor.name}' already exists in request")
        given[tensor.name] = tensor
    known = [spec.name for spec in manifest.inputs]
    if len(given) != len(known):
        missing = [name for name in known if name not in given]
        raise _refused(
            request,
            missing[0] if missing else next(name for name in given if name not in known),
            f"expected {len(known)} inputs but got {len(given)} inputs for model '{manifest.graph}'. "
            f"Got input(s) {_listed(given)}, but missing required input(s) {_listed(missing)}. "
            f"Please provide all required input(s).",
        )
    for name in given:
        if name not in known:
            raise invalid(name, f"unexpected inference input '{name}' for model '{manifest.graph}'")
    return given


def _check_rows(request: InferRequest, manifest: Manifest) -> None:
    """All inputs have the same rows, at least one and at most what one call of the graph takes."""
    graph = manifest.graph
    for tensor in request.inputs:
        if not tensor.shape:
            raise _refused(
                request,
                tensor.name,
                f"input '{tensor.name}' has no shape but model requires batch dimension for '{graph}'",
            )
        if tensor.shape[0] != request.inputs[0].shape[0]:
            raise _refused(
                request,
                tensor.name,
                f"input '{tensor.name}' batch size does not match other inputs for '{graph}'",
            )
    rows = request.inputs[0].shape[0]
    if rows < 1:
        raise _refused(
            request, request.inputs[0].name, f"inference request batch-size must be >= 1 for '{graph}'"
        )
    if rows > manifest.max_batch_size:
        raise _refused(
            request,
            request.inputs[0].name,
            f"inference request batch-size must be <= {manifest.max_batch_size} for '{graph}'",
        )


def _read(
    request: InferRequest,
    tensor: InputTensor,
    spec: TensorSpec,
    manifest: Manifest,
    read: Callable[[Place], bytes],
) -> NDArray[Any]:
    graph, expected = manifest.graph, datatype(spec.dtype)
    if tensor.datatype != expected:
        said = tensor.datatype if tensor.datatype in (*DTYPES, BYTES) else "<invalid>"
        raise _refused(
            request,
            tensor.name,
            f"inference input '{tensor.name}' data-type is '{said}', but model '{graph}' "
            f"expects '{expected}'",
        )
    _check_shape(request, tensor, spec, graph)
    content = tensor.content
    if content is None:
        raise invalid(
            tensor.name,
            f"unable to find data for input tensor '{tensor.name}' for model '{graph}' in request.",
        )
    if isinstance(content, np.ndarray) and content.dtype != DTYPES[expected]:
        raise invalid(
            tensor.name,
            f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{graph}' "
            f"of type '{datatype(content.dtype)}', expected datatype '{expected}'",
        )
    size, needed = _size(content), byte_size(expected, tensor.shape)
    if size != needed:
        raise _refused(
            request,
            tensor.name,
            f"input byte size mismatch for input '{tensor.name}' for model '{graph}'. "
            f"Expected {needed}, got {size}",
        )
    if isinstance(content, Place):
        content = read(content)
    if isinstance(content, np.ndarray):
        array = content.reshape(tensor.shape)
    else:
        array = from_bytes(content, expected, tensor.shape)
    if spec.name == "class_id" and manifest.class_labels:
        _check_classes(request, array, manifest)
    return array


def _size(content: Content) -> int:
    if isinstance(content, Place):
        return content.byte_size
    return len(content) if isinstance(content, bytes) else content.nbytes


def _check_shape(request: InferRequest, tensor: InputTensor, spec: TensorSpec, graph: str) -> None:
    axes = tensor.shape[1:]
    if len(axes) != len(spec.shape) or any(
        got < 1 or wanted not in (-1, got) for got, wanted in zip(axes, spec.shape, strict=True)
    ):
        raise _refused(
            request,
            tensor.name,
            f"unexpected shape for input '{tensor.name}' for model '{graph}'. "
            f"Expected {_shape((-1, *spec.shape))}, got {_shape(tensor.shape)}. "
            f"NOTE: the first axis of every tensor is the batch.",
        )
    if any(wanted == -1 and got % spec.multiple_of for got, wanted in zip(axes, spec.shape, strict=True)):
        raise _refused(
            request,
            tensor.name,
            f"unexpected shape for input '{tensor.name}' for model '{graph}'. Expected "
            f"{_shape((-1, *spec.shape))} in multiples of {spec.multiple_of}, got {_shape(tensor.shape)}.",
        )


def _check_classes(request: InferRequest, array: NDArray[Any], manifest: Manifest) -> None:
    """Ids that the graph has no class for: it would fail, and with it whoever shares the batch."""
    last = len(manifest.class_labels) - 1 + (manifest.role == "denoiser")  # which has the null class too
    strange = array[(array < 0) | (array > last)]
    if strange.size:
        raise _refused(
            request,
            "class_id",
            f"unexpected value {strange.flat[0]} in input 'class_id' for model '{manifest.graph}': "
            f"its classes are 0 to {last}",
        )


def _refused(request: InferRequest, name: str, message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, request.said + message, field=name)


def _listed(names: Sequence[str] | dict[str, InputTensor]) -> str:
    return f"[{','.join(repr(name) for name in names)}]"


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
