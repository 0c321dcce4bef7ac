"""`atelier export --precision`: a model of its own, with what it costs measured and bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_diffusion import write_digits_run
from tiny_family import write_run
from tiny_models import candidates

import atelier
from export.publish import published
from export.variant import renamed
from serving.catalog import build, scan
from training.families import FAMILIES


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", "tiny_family:FAMILY")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits_run(tmp_path_factory.mktemp("runs") / "unet-1")


def export(run: Path, repository: Path, *options: str) -> int:
    small = ("--max-batch-size", "8", "--quality-samples", "0")
    return atelier.main(["export", str(run), "--to", str(repository), *small, *options])


def test_a_variant_is_a_model_of_its_own_beside_the_float32_one(run: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export(run, repository) == 0
    assert export(run, repository, "--precision", "int8") == 0
    catalog = build(scan(repository))
    assert catalog.refused == {}
    assert list(catalog.models) == ["unet", "unet_int8"]
    manifests = published(repository)
    denoiser = manifests["unet_int8_denoiser"]
    assert denoiser.metadata["precision"] == "int8"
    assert denoiser.metadata["variant_of"] == "unet"
    record = denoiser.versions[1]
    assert record.precision == "int8"
    assert 0 < record.relative_error < 0.15
    assert record.max_abs_error > 0
    assert record.speedup > 0
    assert record.speedup != 1
    enlarger = manifests["unet_int8_decoder"].versions[1]
    assert enlarger.precision == "float32"
    assert enlarger.sha256 == manifests["unet_decoder"].versions[1].sha256


def test_an_error_above_its_bound_is_refused_with_its_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "repository", "--precision", "int8", "--max-error", "1e-6") == 2
    shown = capsys.readouterr().err
    assert "graph 'denoiser' in int8 is 0.0" in shown
    assert "above the bound 1e-06: keep it in float32, or allow it with --max-error" in shown
    assert not (tmp_path / "repository").exists()


def test_float16_is_within_its_bound(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "repository", "--precision", "float16", "--name", "half") == 0
    record = published(tmp_path / "repository")["half_denoiser"].versions[1]
    assert record.precision == "float16"
    assert 0 < record.relative_error < 0.01


def test_bfloat16_is_refused_on_a_cpu_with_what_runs_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "repository", "--precision", "bfloat16") == 2
    shown = capsys.readouterr().err
    assert "in bfloat16 does not run on this CPU" in shown
    assert "or for a GPU --accelerate tensorrt --accelerate-precision bfloat16" in shown


def test_int8_for_tensorrt_says_so_in_its_configuration(run: Path, tmp_path: Path) -> None:
    options = ("--precision", "int8", "--accelerate", "tensorrt")
    assert export(run, tmp_path / "repository", *options) == 0
    acceleration = published(tmp_path / "repository")["unet_int8_denoiser"].acceleration
    assert acceleration is not None
    assert acceleration.precision == "int8"


def test_an_encoder_is_calibrated_on_training_images(tmp_path: Path) -> None:
    run = write_digits_run(tmp_path / "vae", family="vae")
    assert export(run, tmp_path / "repository", "--precision", "int8") == 0
    manifests = published(tmp_path / "repository")
    assert all(manifest.versions[1].precision == "int8" for manifest in manifests.values())


def test_a_model_with_nothing_to_gain_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "squares")
    assert export(run, tmp_path / "repository", "--precision", "int8") == 2
    assert "nothing in this model is computed in int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-error", "0.1"], "--max-error says nothing without --precision"),
        (["--precision", "int8", "--sampler", "ddim:3"], "leave --sampler out"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert export(run, tmp_path / "repository", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_quality_of_both_is_measured_through_a_gateway_and_bounded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    samples = ("--precision", "int8", "--quality-samples", "60")
    assert export(run, repository, *samples, "--max-quality-loss", "-10") == 2
    shown = capsys.readouterr().err
    assert "unet_int8 loses quality: its " in shown
    assert "is above the bound -10: keep it in float32, or allow it with --max-quality-loss" in shown
    assert not repository.exists()
    assert export(run, repository, *samples, "--max-quality-loss", "10") == 0
    record = published(repository)["unet_int8_denoiser"].versions[1]
    assert {"frechet_distance", "accuracy", "coverage"} <= set(record.quality_change) <= set(record.quality)
    card = (repository / "unet_int8_denoiser" / "card.md").read_text()
    assert "unet, float32, the same seeds" in card
    assert "| Precision | int8 |" in card
    assert "times the rows per second of float32" in card


def test_the_graphs_of_a_variant_are_named_as_those_of_a_model_are() -> None:
    manifests = [candidate.manifest for candidate in candidates()]
    variant = renamed(manifests, "other", "int8")
    assert [manifest.graph for manifest in variant] == ["other_decoder", "other_encoder"]
    assert [m.graph for m in renamed(manifests[:1], "other", "int8")] == ["other"]
