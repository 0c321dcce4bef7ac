import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy

from training import checkpoint

SCRIPT = """
import dataclasses, sys, toy, torch
from training.command import main

def penalised(s):
    images = s.batch.images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(s.networks["net"](images).sum(), images, create_graph=True)
    s.update("net", gradient.square().sum())
    return {"net": torch.zeros(())}

toy.register()
if sys.argv[1] == "penalised":
    toy.FAMILY = dataclasses.replace(toy.FAMILY, step=penalised)
status = main(sys.argv[2:])
print(torch._dynamo.utils.counters["frames"]["ok"])
sys.exit(status)
"""

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="TorchInductor compiles for the CPU with g++"
)


@pytest.fixture
def train_apart(tmp_path: Path):
    """Trains `toy` in a process of its own, since TorchInductor warns of deprecations when it is imported."""

    def run(kind: str, *settings: str) -> subprocess.CompletedProcess[str]:
        flags = [
            part for s in ("steps=5", "batch_size=8", "accelerator=cpu", *settings) for part in ("--set", s)
        ]
        command = [sys.executable, "-c", SCRIPT, kind, "toy", "--data", "toy", *flags]
        folder = str(Path(toy.__file__).parent)
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": folder,
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
@needs_compiler
def test_compiled_networks_are_compiled_and_learn_the_same(train_apart, train_toy, tmp_path):
    done = train_apart("plain", "name=compiled", "compile=true", "toy.dropout=0", "tensorboard=false")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    plain = checkpoint.load(train_toy(steps=5, toy={"dropout": 0.0}).run).tensors("networks")
    compiled = checkpoint.load(tmp_path / "runs" / "compiled").tensors("networks")
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[key], compiled[key], atol=1e-4) for key in plain)


@pytest.mark.slow
@needs_compiler
def test_a_family_that_differentiates_gradients_is_told_not_to_compile(train_apart):
    done = train_apart("penalised", "name=penalised", "compile=true")
    assert done.returncode == 1, done.stderr
    assert (
        "family 'toy' differentiates gradients, which compiled networks cannot do: set compile=false"
        in done.stderr
    )
