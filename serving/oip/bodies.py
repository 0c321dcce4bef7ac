"""Inference requests and answers as HTTP bodies: JSON, with tensors inside it or, raw, behind it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import Code, ServingError, invalid
from serving.oip.messages import (
    Content,
    InferAnswer,
    InferRequest,
    InputTensor,
    OutputTensor,
    Place,
    WantedOutput,
)
from serving.oip.tensors import DTYPES, to_bytes

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header that says how many bytes of a body are JSON; tensors follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferBody:
    """A request, and how its client wants the answer."""

    request: InferRequest
    """What is asked."""
    binary: bool
    """Whether outputs that say nothing of it come raw."""
    binary_outputs: Mapping[str, bool]
    """Outputs that say whether they come raw."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before `Content-Encoding`: of one over `limit` bytes the first `limit` and one more.

    INVALID_ARGUMENT where it is not of that encoding, or not all of it.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ServingError(
            Code.UNIMPLEMENTED, f"Unsupported compression type {encoding!r}: send gzip, deflate or neither"
        )
    inflate = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        content = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise invalid("Content-Encoding", f"the body is not {encoding}: {error}") from error
    if len(content) > limit:
        return content
    if not inflate.eof:
        raise invalid("Content-Encoding", f"the body is not all of its {encoding}: it was cut short")
    return content


def compress(body: bytes, encoding: str) -> bytes:
    """The body as gzip or deflate."""
    return gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)


def read_body(graph: str, version: str, body: bytes, header_length: str | None) -> InferBody:
    """What a body asks. INVALID_ARGUMENT names the field or tensor that makes no sense."""
    size = len(body) if header_length is None else _header_size(header_length, len(body))
    document = read_json(body[:size])
    raw = _Raw(graph, memoryview(body)[size:])
    said = parameters_of(document, "the request")
    request = InferRequest(
        graph=graph,
        version=version,
        request_id=_text(document, "id", ""),
        inputs=tuple(_input(each, raw) for each in _list(document, "inputs")),
        outputs=tuple(_output(each) for each in _list(document, "outputs", ())),
        priority=_whole(said, "priority"),
        timeout=_whole(said, "timeout"),
    )
    raw.done()
    return InferBody(
        request=request,
        binary=flag(said, "binary_data_output"),
        binary_outputs={
            each["name"]: flag(each["parameters"], "binary_data")
            for each in document.get("outputs", ())
            if "binary_data" in each.get("parameters", {})
        },
    )


def write_body(answer: InferAnswer, asked: InferBody) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where tensors follow."""
    outputs, raw = [], []
    for output in answer.outputs:
        document: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if output.place is not None:
            document["parameters"] = {
                "shared_memory_region": output.place.region,
                "shared_memory_offset": output.place.offset,
                "shared_memory_byte_size": output.place.byte_size,
            }
        elif asked.binary_outputs.get(output.name, asked.binary):
            assert output.array is not None, "what is in no region is sent"
            raw.append(to_bytes(output.array))
            document["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            document["data"] = _elements(output)
        outputs.append(document)
    header = json.dumps(
        {
            **({"id": answer.request_id} if answer.request_id else {}),
            "model_name": answer.graph,
            "model_version": str(answer.version),
            "outputs": outputs,
        },
        separators=(",", ":"),
    ).encode()
    return b"".join([header, *raw]), len(header) if raw else None


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a body; an empty body is an empty object. INVALID_ARGUMENT for anything else."""
    if not body:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8, or nested too deeply"
        raise ServingError(
            Code.INVALID_ARGUMENT, f"failed to parse the request JSON buffer: {reason}"
        ) from error
    if not isinstance(document, dict):
        raise ServingError(
            Code.INVALID_ARGUMENT, "failed to parse the request JSON buffer: it must be an object, {...}"
        )
    return document


def read_region(document: Mapping[str, Any]) -> tuple[str, int, int]:
    """Key, offset and size of a region of shared memory that is to be registered."""
    return _text(document, "key"), _whole(document, "offset"), _whole(document, "byte_size")


class _Raw:
    """The tensors behind the JSON of a body, taken in their order."""

    def __init__(self, graph: str, content: memoryview) -> None:
        self._graph = graph
        self._content = content
        self._at = 0

    def take(self, name: str, size: int) -> memoryview:
        """The next tensor."""
        missing = self._at + size - len(self._content)
        if missing > 0:
            raise invalid(
                name,
                f"unexpected size for input '{name}', expecting {missing} additional bytes "
                f"for model '{self._graph}'",
            )
        self._at += size
        return self._content[self._at - size : self._at]

    def done(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._content):
            raise invalid("inputs", f"unexpected additional input data for model '{self._graph}'")


def _header_size(said: str, size: int) -> int:
    number = int(said) if said.isascii() and said.isdigit() and len(said) < 18 else 0
    if not 0 < number <= size:
        raise invalid(HEADER_LENGTH, f"inference header size should be in range (0, {size}), got: {said}")
    return number


def _input(document: Any, raw: _Raw) -> InputTensor:
    name = _text(document, "name")
    datatype = _text(document, "datatype")
    shape = _list(document, "shape")
    if any(type(axis) is not int for axis in shape):
        raise invalid(name, f"Unable to parse 'shape' of input '{name}': it must be a list of whole numbers")
    parameters = parameters_of(document, f"input '{name}'")
    said = [key for key in ("binary_data_size", "shared_memory_region") if key in parameters]
    said += ["data"] if "data" in document else []
    if len(said) != 1:
        what = " ".join(f"'{key}'" for key in said) if said else "no field"
        raise invalid(
            name,
            f"Input '{name}' must set only one of the following fields: 'data', 'binary_data_size' in "
            f"'parameters', 'shared_memory_region' in 'parameters'. But {what} {'are' if said else 'is'} set",
        )
    content: Content | None
    if "data" in document:
        content = _array(name, datatype, _list(document, "data"))
    elif "binary_data_size" in parameters:
        content = raw.take(name, _whole(parameters, "binary_data_size"))
    else:
        content = _place(parameters)
    return InputTensor(name=name, datatype=datatype, shape=tuple(shape), content=content)


def _array(name: str, datatype: str, data: Sequence[Any]) -> NDArray[Any] | None:
    """Elements of a JSON list, flat or nested as the shape is."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        return None
    try:
        array = np.array(data)
    except ValueError as error:
        raise invalid(
            name, f"Unable to parse 'data' of input '{name}': lists of different lengths"
        ) from error
    kinds = {"f": "iuf", "b": "b"}.get(dtype.kind, "iu")
    if array.size and array.dtype.kind not in kinds:
        raise invalid(
            name,
            f"Unable to parse 'data' of input '{name}': not all of it are numbers as {datatype} has them",
        )
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise invalid(name, f"Unable to parse 'data' of input '{name}': beyond the range of {datatype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _elements(output: OutputTensor) -> list[Any]:
    assert output.array is not None, "what is in no region is sent"
    if output.array.dtype == object:
        return [text.decode() for text in output.array.flat]
    elements: list[Any] = output.array.ravel().tolist()
    return elements


def _output(document: Any) -> WantedOutput:
    name = _text(document, "name")
    parameters = parameters_of(document, f"output '{name}'")
    classes = _whole(parameters, "classification")
    if "classification" in parameters and classes < 1:
        raise invalid(name, f"invalid value for 'classification' parameter of output '{name}', expected > 0")
    place = _place(parameters) if "shared_memory_region" in parameters else None
    return WantedOutput(name=name, classes=classes, place=place)


def _place(parameters: Mapping[str, Any]) -> Place:
    return Place(
        region=_text(parameters, "shared_memory_region"),
        offset=_whole(parameters, "shared_memory_offset"),
        byte_size=_whole(parameters, "shared_memory_byte_size"),
    )


def parameters_of(document: Any, of: str) -> Mapping[str, Any]:
    """The parameters of a request or tensor, none where none are given."""
    found = document.get("parameters", {})
    if not isinstance(found, dict):
        raise invalid("parameters", f"Unable to parse 'parameters' of {of}: it must be an object, {{...}}")
    return found


def _text(document: Any, name: str, default: str | None = None) -> str:
    value = document.get(name, default) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise invalid(name, f"Unable to parse '{name}': it must be given, as a string")
    return value


def _list(document: Any, name: str, default: Sequence[Any] | None = None) -> Sequence[Any]:
    value = document.get(name, default)
    if not isinstance(value, list | tuple):
        raise invalid(name, f"Unable to parse '{name}': it must be given, as a list")
    return value


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or value < 0:
        raise invalid(name, f"Unable to parse '{name}': it must be a whole number, 0 or more")
    return value


def flag(parameters: Mapping[str, Any], name: str) -> bool:
    """A member that is true or false, false where it is not given."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, f"Unable to parse '{name}': it must be true or false")
    return value
