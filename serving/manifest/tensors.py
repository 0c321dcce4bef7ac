"""The inputs and outputs of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.manifest.problems import ManifestError

Dtype = Literal["float32", "int64"]

TRITON_DTYPES: dict[Dtype, str] = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
"""Element types by the names that Triton has for them."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    """Name of the tensor in the ONNX graph."""
    dtype: Dtype = "float32"
    """Element type."""
    shape: tuple[int, ...]
    """Shape of one row, without the batch axis; -1 is a dynamic axis."""
    multiple_of: int = 1
    """What every dynamic axis must be divisible by."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ManifestError("a tensor has no name: give it the name it bears in the ONNX graph")
        if self.dtype not in TRITON_DTYPES:
            raise ManifestError(f"tensor {self.name!r} has dtype {self.dtype!r}, not one of float32, int64")
        if any(axis == 0 or axis < -1 for axis in self.shape):
            raise ManifestError(
                f"tensor {self.name!r} has shape {list(self.shape)}: axes are positive, or -1"
            )
        if self.multiple_of < 1:
            raise ManifestError(f"tensor {self.name!r} has multiple_of {self.multiple_of}: it is 1 or more")
