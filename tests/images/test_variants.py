"""The images of GPUs and of training: really built, and run as far as that goes without a GPU."""

from __future__ import annotations

import re

import pytest
from rootfs import built, require_time, require_tools, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_DRIVER = {"libcuda.so.1"}
"""What the host's driver brings into a container."""

_TRAIN_AND_EXPORT = """
atelier train gan --data digits --set steps=20 --set batch_size=8 --run-dir /tmp/runs/gan >&2
atelier export /tmp/runs/gan --to /tmp/models --name image_gan >&2
exec python -c '
from pathlib import Path
from serving.catalog import build, scan
model = build(scan(Path("/tmp/models"))).models["image_gan"]
print(*model.versions, *model.tasks)'
"""

_MISSING = """
libraries=$(dirname $(python -c "import onnxruntime; print(onnxruntime.__file__)"))/capi
export LD_LIBRARY_PATH=$(echo "$libraries"/../../nvidia/*/lib | tr ' ' ':')
ldd "$libraries"/libonnxruntime_providers_cuda.so
"""


def test_the_gpu_image_brings_all_but_the_driver_and_serves_on_a_cpu_without_one():
    require_tools()
    require_time()
    with built("Dockerfile", "--build-arg", "VARIANT=gpu") as image:
        assert image.config["Labels"]["org.opencontainers.image.description"].endswith("(gpu)")
        asked = "import onnxruntime as o; print(*o.get_available_providers())"
        known = run(image, "python", "-c", asked).split()
        assert known == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        linked = run(image, "sh", "-ec", _MISSING)
        assert "libcublas.so" in linked
        assert set(re.findall(r"^\s*(\S+) => not found", linked, re.MULTILINE)) <= _DRIVER
        assert list(image.root.glob("opt/atelier/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn.so.*"))
        found = run(image, "atelier", "doctor", ATELIER_HOST="127.0.0.1")
        assert "0 wrong" in found
        assert found.count(": loads, and its digests are right") >= 8
        assert "providers ['CPUExecutionProvider']" in found


def test_the_training_image_trains_and_publishes():
    require_tools()
    require_time()
    with built("training.Dockerfile") as image:
        assert image.config["User"] == "10001:10001"
        assert run(image, "sh", "-ec", _TRAIN_AND_EXPORT, seconds=600).split() == ["1", "generate", "decode"]
