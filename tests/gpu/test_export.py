"""Exports that need a GPU: plans by TensorRT, and the rows at which a GPU is fastest."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_diffusion import write_digits_run

import atelier
from export.publish import published


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits_run(tmp_path_factory.mktemp("runs") / "unet")


def export(run: Path, repository: Path, *options: str) -> int:
    return atelier.main(["export", str(run), "--to", str(repository), "--max-batch-size", "16", *options])


def test_the_usual_rows_are_measured_on_the_gpu(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "repository", "--accelerate", "tensorrt") == 0
    acceleration = published(tmp_path / "repository")["unet_denoiser"].acceleration
    assert acceleration is not None
    assert acceleration.profile.measured_on
    assert acceleration.profile.rows[1] in (1, 2, 4, 8, 16)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is None or not torch.cuda.is_available(),
    reason="NO TENSORRT: it needs pip install tensorrt and a torch built for CUDA",
)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_plan_is_built_and_equals_its_graph(run: Path, tmp_path: Path, precision: str) -> None:
    options = ["--plan", "--timing-cache", str(tmp_path / "timings")]
    if precision != "float32":
        options += ["--precision", precision, "--quality-samples", "0"]
    assert export(run, tmp_path / "repository", *options) == 0
    name = "unet_denoiser" if precision == "float32" else f"unet_{precision}_denoiser"
    folder = tmp_path / "repository" / name
    record = published(tmp_path / "repository")[name].versions[1]
    assert record.plan is not None
    assert record.plan.sha256 == hashlib.sha256((folder / "1" / "model.plan").read_bytes()).hexdigest()
    assert record.plan.gpu == torch.cuda.get_device_name(0)
    assert (folder / "configs" / "tensorrt.pbtxt").is_file()
    assert (tmp_path / "timings").stat().st_size > 0
