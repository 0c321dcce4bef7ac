"""`atelier export` as one types it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_family import write_run

import atelier
from export.publish import published
from export.sources import model_name
from training.checkpoint import load
from training.families import FAMILIES


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", "tiny_family:FAMILY")
    monkeypatch.setenv("COLUMNS", "200")


def export(run: Path, repository: Path, *options: str) -> int:
    return atelier.main(["export", str(run), "--to", str(repository), *options])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "squares-3")


def test_a_run_becomes_the_next_version_of_its_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    assert export(run, repository) == 0
    content = (repository / "squares" / "1" / "model.onnx").read_bytes()
    manifest = published(repository)["squares"]
    record = manifest.versions[1]
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert 0 < record.max_abs_error <= 1e-4
    assert record.min_rows == 1
    assert record.created.endswith("Z")
    assert manifest.class_labels == ("red", "green", "blue")
    assert manifest.metadata["data_source"] == "Drawn by hand, public domain."
    assert manifest.metadata["data"] == "squares"
    assert json.loads(manifest.metadata["data_options"]) == {"size": 8}
    assert manifest.metadata["steps"] == "7"
    assert manifest.metadata["cpu_seconds"] == "12"
    shown = capsys.readouterr().err
    for word in ("squares version 1, from step 7", "opset", record.sha256[:12], "from 1"):
        assert word in shown
    assert f"atelier evaluate squares --repository {repository}" in shown
    assert f"atelier serve --repository {repository}" in shown


def test_the_averaged_weights_are_published(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "repository", "--name", "other") == 0
    session = onnxruntime.InferenceSession(tmp_path / "repository" / "other" / "1" / "model.onnx")
    latent, class_id = torch.ones(2, 4), torch.tensor([[0], [2]])
    (output,) = session.run(None, {"latent": latent.numpy(), "class_id": class_id.numpy()})
    checkpoint = load(run)
    averaged = checkpoint.averaged_networks()["decoder"]
    np.testing.assert_allclose(output, averaged(latent, class_id).detach().numpy(), atol=1e-5)
    averaged.load_state_dict(
        {name.removeprefix("decoder."): value for name, value in checkpoint.tensors("networks").items()}
    )
    assert np.abs(output - averaged(latent, class_id).detach().numpy()).max() > 1e-2


def test_exporting_again_publishes_the_next_version_with_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "repository") == 0
    assert export(run, tmp_path / "repository") == 0
    versions = published(tmp_path / "repository")["squares"].versions
    assert sorted(versions) == [1, 2]
    assert versions[1].sha256 == versions[2].sha256


def test_a_dry_run_does_all_but_publishing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "repository", "--dry-run", "--version", "4") == 0
    assert not (tmp_path / "repository").exists()
    shown = capsys.readouterr().err
    assert "squares would be version 4 in" in shown
    assert "sha256" in shown


def test_a_checkpoint_of_a_run_can_be_named(run: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert export(checkpoint, tmp_path / "repository", "--version", "4") == 0
    assert sorted(published(tmp_path / "repository")["squares"].versions) == [4]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("digits_vae-0", "digits_vae"), ("digits_vae", "digits_vae"), ("vae-2-12", "vae-2")],
)
def test_a_model_is_named_as_its_run_without_the_number(tmp_path: Path, folder: str, expected: str) -> None:
    assert model_name(load(write_run(tmp_path / folder))) == expected


def test_a_model_whose_rows_see_each_other_is_refused_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "neighbours", neighbourly=True)
    assert export(run, tmp_path / "repository") == 2
    shown = capsys.readouterr().err
    assert "graph 'decoder': a row's result depends on the other rows of its batch" in shown
    assert "or allow it with --allow-unstable-rows" in shown
    assert not (tmp_path / "repository").exists()
    assert export(run, tmp_path / "repository", "--allow-unstable-rows") == 0
    assert "published all the same, as asked" in capsys.readouterr().err


def test_a_tolerance_that_is_not_met_publishes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "repository", "--tolerance", "1e-12") == 2
    shown = capsys.readouterr().err
    assert "graph 'decoder', output 'sample'" in shown
    assert "above the tolerance 1e-12" in shown
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "0"], "--tolerance 0.0 is not possible: give a positive difference"),
        (["--max-batch-size", "0"], "max_batch_size must be at least 1, got 0"),
        (["--name", "a/b"], "'a/b' must be letters, digits, '_' and '-' alone"),
        (["--version", "0"], "version 0 is not possible: versions count from 1"),
    ],
)
def test_an_option_that_cannot_be_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert export(run, tmp_path / "repository", *options) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("atelier export: ")
    assert not (tmp_path / "repository").exists()


def test_what_is_not_a_run_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "nothing", tmp_path / "repository") == 2
    assert "nothing does not exist: give the folder of a run" in capsys.readouterr().err
    assert export(tmp_path, tmp_path / "repository") == 2
    assert "is not a run: it has no checkpoints" in capsys.readouterr().err


def test_a_family_that_is_not_known_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "strange", family="diffusio")
    assert export(run, tmp_path / "repository") == 2
    assert "family 'diffusio' is not one of" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (weights,) = run.glob("checkpoints/*/averages.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    assert export(run, tmp_path / "repository") == 2
    assert "averages.safetensors is truncated" in capsys.readouterr().err


def test_a_repository_that_cannot_be_made_is_named_before_the_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "no" / "repository") == 2
    shown = capsys.readouterr().err
    assert "create that folder first, or name another repository with --to" in shown
    assert "sha256" not in shown


def test_a_run_of_other_labels_does_not_become_a_version_of_the_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "repository") == 0
    (file,) = run.glob("checkpoints/*/checkpoint.json")
    values = json.loads(file.read_text())
    values["data"]["class_labels"] = ["red", "green", "ultraviolet"]
    file.write_text(json.dumps(values))
    shutil.rmtree(tmp_path / "repository" / "squares" / "1")
    assert export(run, tmp_path / "repository") == 2
    assert "publish it as another model with --name" in capsys.readouterr().err
