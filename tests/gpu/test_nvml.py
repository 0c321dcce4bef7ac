"""The driver answers the questions that the gateway's metrics ask."""

from __future__ import annotations

import pytest


def test_the_driver_knows_a_gpu_with_memory() -> None:
    pynvml = pytest.importorskip("pynvml", reason="NO NVML: pip install nvidia-ml-py")
    pynvml.nvmlInit()
    try:
        assert pynvml.nvmlDeviceGetCount() >= 1
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
        assert 0 < memory.used <= memory.total
    finally:
        pynvml.nvmlShutdown()
