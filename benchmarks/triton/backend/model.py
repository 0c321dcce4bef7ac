"""A backend of the name `onnxruntime` for a Triton that was built without one.

Written from the documentation of Triton's python-based backends: the file stands as `model.py` in the
backend's folder, and runs the `model.onnx` of whatever model names that backend. As Triton's own, it takes
the threads within a call from the model's parameter `intra_op_thread_count`, here 1 where there is none.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of a model: one session."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value", "1")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        columns = {
            name: [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self._inputs
        }
        feed = {
            name: np.concatenate(parts) if len(parts) > 1 else parts[0] for name, parts in columns.items()
        }
        results = self._session.run(self._outputs, feed)
        splits = np.cumsum([len(part) for part in columns[self._inputs[0]]])[:-1]
        shares = [np.split(result, splits) for result in results]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, share) for name, share in zip(self._outputs, each, strict=True)]
            )
            for each in zip(*shares, strict=True)
        ]
