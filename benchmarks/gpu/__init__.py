"""What a GPU makes of the shipped models: `python -m benchmarks.gpu`."""
