import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

Exported = Callable[..., list[np.ndarray]]
Export = Callable[[nn.Module, Sequence[Tensor]], Exported]


@pytest.fixture
def export() -> Export:
    """Exports a module with a dynamic batch; what it returns runs the graph on tensors in order."""

    def export(module: nn.Module, inputs: Sequence[Tensor]) -> Exported:
        rows = torch.export.Dim("rows")
        with warnings.catch_warnings():
            # torch 2.13's own exporter calls a function that torch 2.13 deprecates.
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs),
                dynamo=True,
                opset_version=20,
                dynamic_shapes=tuple({0: rows} for _ in inputs),
                verbose=False,
            )
        assert program is not None
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
        names = [tensor.name for tensor in session.get_inputs()]
        return lambda *tensors: session.run(
            None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        )

    return export
