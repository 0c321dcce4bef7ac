"""What `atelier export --accelerate` writes, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_family import write_run

import atelier
from export.accelerate import Batches, cuda_session, measured_rows
from export.onnx import export_graph
from export.publish import published
from export.speed import buckets, enough_rows
from export.validate import open_session
from serving.manifest.acceleration import Acceleration, Profile
from training.checkpoint import load
from training.families import FAMILIES


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", "tiny_family:FAMILY")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "squares")


def export(run: Path, repository: Path, *options: str) -> int:
    return atelier.main(["export", str(run), "--to", str(repository), *options])


def test_the_accelerators_are_declared_with_the_variant_for_the_cpu_beside(run: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export(run, repository, "--accelerate", "tensorrt", "--max-batch-size", "16") == 0
    expected = Acceleration(accelerator="tensorrt", profile=Profile(rows=(1, 16, 16)))
    assert published(repository)["squares"].acceleration == expected
    assert "KIND_CPU" in (repository / "squares" / "configs" / "cpu.pbtxt").read_text()
    assert "instance_group" not in (repository / "squares" / "config.pbtxt").read_text()


def test_every_option_is_heard(run: Path, tmp_path: Path) -> None:
    options = ["--accelerate", "tensorrt", "--accelerate-precision", "bfloat16", "--usual-rows", "4"]
    options += ["--gpu-instances", "2", "--engine-cache", "engines", "--workspace-bytes", "1000"]
    assert export(run, tmp_path / "repository", *options, "--max-batch-size", "8") == 0
    assert published(tmp_path / "repository")["squares"].acceleration == Acceleration(
        accelerator="tensorrt",
        precision="bfloat16",
        profile=Profile(rows=(1, 4, 8)),
        workspace_bytes=1000,
        engine_cache="engines",
        instances=2,
    )


def test_what_was_declared_stays_when_the_next_version_says_nothing(run: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export(run, repository, "--accelerate", "cuda", "--usual-rows", "8") == 0
    assert export(run, repository) == 0
    manifest = published(repository)["squares"]
    assert manifest.acceleration is not None
    assert manifest.acceleration.profile.rows == (1, 8, 64)
    variant = (repository / "squares" / "configs" / "cpu.pbtxt").read_text()
    assert "atelier.version.2" in variant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu-instances", "2"], "--gpu-instances says nothing without --accelerate"),
        (["--engine-cache", "x"], "--engine-cache says nothing without --accelerate"),
        (["--accelerate", "cuda", "--usual-rows", "65"], "--usual-rows 65 is not between 1 and 64"),
        (
            ["--accelerate", "cuda", "--accelerate-precision", "int8"],
            "the cuda accelerator computes in what the graph holds",
        ),
    ],
)
def test_an_option_that_cannot_be_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert export(run, tmp_path / "repository", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


def test_the_usual_rows_are_measured_where_there_is_a_gpu(run: Path) -> None:
    checkpoint = load(run)
    (graph,) = checkpoint.family.graphs(
        checkpoint.config.settings, checkpoint.averaged_networks(), checkpoint.data
    )
    exported = export_graph(graph, size=(8, 8))
    batches = Batches(least=2, most=8, size=(8, 8))
    assert cuda_session(exported.model) is None
    assert measured_rows(exported, batches) == (8, "")
    rows, device = measured_rows(exported, batches, open_session)
    assert rows in (2, 4, 8)
    assert device


def test_buckets_double_up_to_the_most_rows() -> None:
    assert buckets(1, 64) == [1, 2, 4, 8, 16, 32, 64]
    assert buckets(2, 50) == [2, 4, 8, 16, 32, 50]
    assert buckets(1, 1) == [1]


def test_the_fewest_rows_near_the_best_rate_are_enough() -> None:
    assert enough_rows({1: 10.0, 2: 19.0, 4: 30.0, 8: 31.0, 16: 31.2}) == 4
    assert enough_rows({1: 10.0}) == 1
