"""From a checkpoint to a model repository: ONNX graphs proven equal to torch, measured and published."""
