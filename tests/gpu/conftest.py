"""Tests that need an NVIDIA GPU: skipped where there is none, and the end of the run says so.

With ATELIER_REQUIRE_GPU=1 a missing GPU fails them, so that a machine that should have one cannot pass
without.
"""

import os
import sys
from functools import cache
from pathlib import Path

import onnxruntime
import pytest

for folder in ("serving", "export"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

CUDA = "CUDAExecutionProvider"
_FOLDER = Path(__file__).parent


@cache
def missing() -> str | None:
    """Why there is no GPU to test on; None where there is one."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA: install onnxruntime-gpu in place of onnxruntime"
    from tiny_models import model

    onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model(1.0), providers=[CUDA, "CPUExecutionProvider"])
    if session.get_providers()[0] != CUDA:
        return f"onnxruntime gave {session.get_providers()[0]}: see to the driver, CUDA 13 and cuDNN 9"
    return None


@pytest.fixture(autouse=True)
def need_gpu() -> None:
    """Skips every test of this folder where there is no GPU, or fails it where one is required."""
    why = missing()
    if why is not None:
        if os.environ.get("ATELIER_REQUIRE_GPU") == "1":
            pytest.fail(f"a GPU is required: {why}", pytrace=False)
        pytest.skip(f"NO GPU: {why}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder."""
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests of a GPU were left out."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "gpu" in report.keywords]
    if skipped:
        terminalreporter.write_line(
            f"NO GPU: {len(skipped)} tests of tests/gpu were not run; on a machine with one: "
            "ATELIER_REQUIRE_GPU=1 pytest tests/gpu",
            red=True,
        )
