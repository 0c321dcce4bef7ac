"""Triton's side of diffusion: a model of the Python backend that samples whole requests.

Written from the documentation of Triton's Python backend: `execute` is handed the requests that the dynamic
batcher has joined, and returns a response for each.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.environ["BENCH_SOURCE_TREE"])  # Triton gives its stubs a PYTHONPATH of its own

from benchmarks.peers.assets.whole import Whole


class TritonPythonModel:
    """Rows in, pixels out."""

    def initialize(self, args: dict[str, str]) -> None:
        self._whole = Whole.from_environment()

    def execute(self, requests: list[Any]) -> list[Any]:
        rows = [pb_utils.get_input_tensor_by_name(request, "rows").as_numpy() for request in requests]
        images = self._whole.images(np.concatenate(rows))
        splits = np.cumsum([len(each) for each in rows])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("images", np.ascontiguousarray(part))])
            for part in np.split(images, splits)
        ]
