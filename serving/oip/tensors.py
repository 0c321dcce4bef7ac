"""Tensors between the wire and numpy: row-major, little-endian, named as the protocol names them."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES = "BYTES"
"""Datatype of strings: each is its length in four bytes, and itself."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""The protocol's datatypes that are numpy's too."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype(dtype: str | np.dtype[Any]) -> str:
    """The protocol's name of an element type: FP32 for float32."""
    return _NAMES[np.dtype(dtype).newbyteorder("<")]


def byte_size(name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of that datatype and shape."""
    return math.prod(shape) * DTYPES[name].itemsize


def from_bytes(content: bytes | memoryview, name: str, shape: Sequence[int]) -> NDArray[Any]:
    """The tensor, without a copy where its bytes lie as its elements must."""
    return np.require(np.frombuffer(content, DTYPES[name]).reshape(shape), requirements="A")


def to_bytes(array: NDArray[Any]) -> bytes:
    """The elements as they go over the wire."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(text)) + text for text in array.flat)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def classify(array: NDArray[Any], classes: int) -> NDArray[np.object_]:
    """The greatest elements of each row, [rows, at most `classes`], each as b"value:index"."""
    rows = array.reshape(len(array), -1)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :classes]
    texts = [[f"{row[i]:f}:{i}".encode() for i in best] for row, best in zip(rows, order, strict=True)]
    return np.array(texts, object).reshape(order.shape)
