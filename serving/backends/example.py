"""Inputs to try a graph with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.manifest import Manifest, TensorSpec

_SIDE = 32


def example(manifest: Manifest, rows: int) -> dict[str, NDArray[Any]]:
    """Zeros for all inputs; images of any size have 32 pixels a side, or as many as they must."""
    return {spec.name: np.zeros((rows, *_shape(spec)), spec.dtype) for spec in manifest.inputs}


def _shape(spec: TensorSpec) -> list[int]:
    side = -(-_SIDE // spec.multiple_of) * spec.multiple_of
    return [side if axis < 0 else axis for axis in spec.shape]
