"""TensorRT plans: everything but what TensorRT itself does, which `tests/gpu` checks where there is a GPU."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_family import write_run
from tiny_models import candidates

import atelier
from export.onnx import ExportError, OnnxGraph, export_graph
from export.publish import Candidate, publish, published
from export.tensorrt import compared, profile_shapes, read_timing_cache, require_tensorrt
from export.validate import open_session
from serving.manifest import PlanRecord
from serving.manifest.acceleration import Profile
from training.checkpoint import load
from training.families import FAMILIES

NO_GPU = importlib.util.find_spec("tensorrt") is None or not torch.cuda.is_available()
PROFILE = Profile(rows=(1, 4, 8))


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", "tiny_family:FAMILY")


@pytest.fixture
def exported(tmp_path: Path) -> OnnxGraph:
    checkpoint = load(write_run(tmp_path / "squares"))
    (graph,) = checkpoint.family.graphs(
        checkpoint.config.settings, checkpoint.averaged_networks(), checkpoint.data
    )
    return export_graph(graph, size=(8, 8))


def planned(plan: bytes = b"a plan") -> list[Candidate]:
    record = PlanRecord(
        sha256=hashlib.sha256(plan).hexdigest(),
        max_abs_error=1e-4,
        tensorrt="11.4.0.106",
        gpu="NVIDIA L4",
        profile=PROFILE,
    )
    return [
        dataclasses.replace(each, record=dataclasses.replace(each.record, plan=record), plan=plan)
        for each in candidates(roles=("decoder",))
    ]


@pytest.mark.skipif(not NO_GPU, reason="this machine has TensorRT and a GPU")
def test_a_plan_without_tensorrt_or_a_gpu_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "squares")
    assert atelier.main(["export", str(run), "--to", str(tmp_path / "repository"), "--plan"]) == 2
    shown = capsys.readouterr().err
    assert "atelier export: --plan needs" in shown
    assert "NVIDIA GPU" in shown
    assert "or leave --plan out" in shown
    assert not (tmp_path / "repository").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_the_package_that_is_missing_is_named() -> None:
    with pytest.raises(ExportError, match="tensorrt, which is not installed: pip install tensorrt"):
        require_tensorrt()


def test_a_plan_stands_beside_the_graph_of_its_version(tmp_path: Path) -> None:
    assert publish(tmp_path / "repository", candidates(roles=("decoder",))) == 1
    assert publish(tmp_path / "repository", planned()) == 2
    folder = tmp_path / "repository" / "tiny"
    assert (folder / "2" / "model.plan").read_bytes() == b"a plan"
    assert (folder / "2" / "model.onnx").is_file()
    assert not (folder / "1" / "model.plan").exists()
    assert sorted(path.name for path in (folder / "configs").iterdir()) == ["cpu.pbtxt", "tensorrt.pbtxt"]
    record = published(tmp_path / "repository")["tiny"].versions[2].plan
    assert record is not None
    assert record.profile == PROFILE
    assert publish(tmp_path / "repository", candidates(roles=("decoder",), factor=3.0)) == 3
    variant = (folder / "configs" / "tensorrt.pbtxt").read_text()
    assert "versions: 2" in variant
    assert "versions: 3" not in variant


def test_a_profile_names_the_three_shapes_of_every_input() -> None:
    (candidate,) = candidates(roles=("decoder",))
    assert profile_shapes(candidate.manifest, PROFILE) == {"latent": ((1, 4), (4, 4), (8, 4))}


def test_a_timing_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_timing_cache(None) == b""
    assert read_timing_cache(tmp_path / "cache") == b""
    (tmp_path / "cache").write_bytes(b"timings")
    assert read_timing_cache(tmp_path / "cache") == b"timings"


class Scaled:
    """A session whose results are off by a factor."""

    def __init__(self, model: bytes, factor: float) -> None:
        self._session = open_session(model)
        self._factor = np.float32(factor)
        self.rows: list[int] = []

    def run(self, names: Sequence[str] | None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.rows.append(len(inputs["latent"]))
        return [self._factor * values for values in self._session.run(names, inputs)]


def test_a_plan_is_compared_with_its_graph_at_the_ends_of_its_profile(exported: OnnxGraph) -> None:
    plan = Scaled(exported.model, 1 + 1e-5)
    error = compared(
        plan, open_session(exported.model), exported.graph, PROFILE, size=(8, 8), precision="float32"
    )
    assert plan.rows == [1, 4, 8]
    assert 0 < error < 1e-4


@pytest.mark.parametrize(("precision", "factor"), [("float32", 1.01), ("float16", 1.1), ("int8", np.nan)])
def test_a_plan_that_differs_too_much_is_refused(exported: OnnxGraph, precision: str, factor: float) -> None:
    with pytest.raises(ExportError, match=r"graph 'decoder', 1 rows: the plan is .* leave --plan out"):
        compared(
            Scaled(exported.model, factor),
            open_session(exported.model),
            exported.graph,
            PROFILE,
            size=(8, 8),
            precision=precision,
        )
