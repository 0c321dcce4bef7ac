"""Inference requests and answers as the protocol's protobuf messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from serving.errors import invalid
from serving.oip.messages import Content, InferAnswer, InferRequest, InputTensor, Place, WantedOutput
from serving.oip.tensors import to_bytes

_TYPED: Mapping[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
}
"""Element types of the fields of InferTensorContents."""


def read_request(message: Any) -> InferRequest:
    """What a ModelInferRequest asks. INVALID_ARGUMENT names the parameter or tensor that makes no sense."""
    raw = iter(message.raw_input_contents)
    parameters = message.parameters
    return InferRequest(
        graph=message.model_name,
        version=message.model_version,
        request_id=message.id,
        inputs=tuple(_input(message, tensor, raw) for tensor in message.inputs),
        outputs=tuple(_output(each) for each in message.outputs),
        priority=_priority(parameters),
        timeout=_whole(parameters, "timeout"),
    )


def write_answer(answer: InferAnswer) -> Any:
    """A ModelInferResponse, with its tensors raw."""
    message = pb.ModelInferResponse(
        model_name=answer.graph, model_version=str(answer.version), id=answer.request_id
    )
    for output in answer.outputs:
        tensor = message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if output.place is not None:
            tensor.parameters["shared_memory_region"].string_param = output.place.region
            tensor.parameters["shared_memory_offset"].int64_param = output.place.offset
            tensor.parameters["shared_memory_byte_size"].int64_param = output.place.byte_size
        message.raw_output_contents.append(b"" if output.array is None else to_bytes(output.array))
    return message


def _input(message: Any, tensor: Any, raw: Iterator[bytes]) -> InputTensor:
    content: Content | None = _place(tensor.parameters)
    if message.raw_input_contents and tensor.HasField("contents"):
        raise invalid(
            tensor.name,
            f"contents field must not be specified when using raw_input_contents for '{tensor.name}' "
            f"for model '{message.model_name}'",
        )
    if content is None:
        content = _typed(tensor) if tensor.HasField("contents") else next(raw, None)
    return InputTensor(name=tensor.name, datatype=tensor.datatype, shape=tuple(tensor.shape), content=content)


def _typed(tensor: Any) -> Content | None:
    for field, values in tensor.contents.ListFields():
        if field.name not in _TYPED:
            raise invalid(
                tensor.name,
                f"unexpected explicit tensor data for input tensor '{tensor.name}' of type 'BYTES': "
                f"give numbers",
            )
        return np.array(values, _TYPED[field.name])
    return None


def _output(wanted: Any) -> WantedOutput:
    classes = 0
    if "classification" in wanted.parameters:
        classes = _whole(wanted.parameters, "classification")
        if classes < 1:
            raise invalid(
                wanted.name,
                f"invalid value for 'classification' parameter of output '{wanted.name}', expected > 0",
            )
    return WantedOutput(name=wanted.name, classes=classes, place=_place(wanted.parameters))


def _place(parameters: Any) -> Place | None:
    if "shared_memory_region" not in parameters:
        return None
    return Place(
        region=parameters["shared_memory_region"].string_param,
        offset=_whole(parameters, "shared_memory_offset"),
        byte_size=_whole(parameters, "shared_memory_byte_size"),
    )


def _priority(parameters: Any) -> int:
    if "priority" not in parameters:
        return 0
    kind = parameters["priority"].WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise invalid(
            "priority", "invalid value type for 'priority' parameter, expected int64_param or uint64_param."
        )
    priority: int = getattr(parameters["priority"], kind)
    if priority < 0:
        raise invalid("priority", "invalid value for 'priority', expected value >= 0.")
    return priority


def _whole(parameters: Any, name: str) -> int:
    """An int64 parameter, 0 where it is not given."""
    if name not in parameters:
        return 0
    if parameters[name].WhichOneof("parameter_choice") != "int64_param":
        raise invalid(name, f"invalid value type for '{name}' parameter, expected int64_param.")
    value: int = parameters[name].int64_param
    return value
