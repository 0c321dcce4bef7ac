"""Every family's graphs compute what torch computes, and make a model that a gateway serves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import atelier
from export.publish import published
from serving.catalog import build, scan
from training.checkpoint import save
from training.config import TrainConfig
from training.data import DataSpec
from training.families import FAMILIES
from training.family import Family
from training.resolve import resolve

DIGITS = DataSpec(
    name="digits", channels=1, height=8, width=8, class_labels=tuple("0123456789"), levels=17, enlarge=4
)
COLOURS = DataSpec(name="colours", channels=3, height=16, width=16, class_labels=("red", "green"))
PLAIN = DataSpec(name="plain", channels=3, height=32, width=24)
OBLONG = DataSpec(name="oblong", channels=3, height=16, width=24, domains=("plain", "striped"))

UNET = {"channels": 16, "multipliers": (1, 2), "blocks": 1}

CASES = {
    "vae of digits": ("vae", DIGITS, {"architecture": "mlp", "hidden": 32, "decoder_noise": 0.1}),
    "convolutional vae": ("vae", COLOURS, {"architecture": "conv", "channels": 8, "conditional": False}),
    "gan of digits": ("gan", DIGITS, {"channels": 8, "latent_dim": 8}),
    "cyclegan": ("cyclegan", OBLONG, {"channels": 8, "blocks": 1, "halvings": 1}),
    "flow of digits": ("diffusion", DIGITS, {**UNET, "prediction": "flow"}),
    "edm of shuffled pixels": ("diffusion", COLOURS, {**UNET, "prediction": "edm", "unshuffle": 2}),
    "epsilon": ("diffusion", COLOURS, {**UNET, "prediction": "epsilon", "vp_schedule": "vp_linear"}),
    "v without classes": ("diffusion", PLAIN, {**UNET, "prediction": "v"}),
    "reflow of digits": ("reflow", DIGITS, UNET),
}


def write_run(folder: Path, name: str, data: DataSpec, settings: dict[str, object]) -> Path:
    """A run of a network that nobody trained, its weights moved off the zeros that they begin with."""
    family: Family = resolve(FAMILIES, name, "family")
    config = TrainConfig(
        family=name, data=data.name, name=folder.name, steps=1, settings=family.config(**settings)
    )
    torch.manual_seed(0)
    weights = family.networks(config.settings, data).state_dict()
    moved = {
        key: value + 0.05 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in weights.items()
    }
    averages = {key: value for key, value in moved.items() if key.split(".")[0] in family.averaged}
    values = {
        "family": name,
        "data": dataclasses.asdict(data),
        "config": config.plain(),
        "curve": [],
        "scaler": {},
        "seed": 0,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
    }
    save(folder, 1, {"networks": moved, "averages": averages, "optimizers": {}}, values)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_family_is_exported_within_the_tolerance_and_served(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, settings = CASES[case]
    run = write_run(tmp_path / "runs" / "model", name, data, settings)
    repository = tmp_path / "repository"
    status = atelier.main(["export", str(run), "--to", str(repository), "--max-batch-size", "33"])
    assert status == 0, capsys.readouterr().err
    manifests = published(repository)
    errors = {graph: manifest.versions[1].max_abs_error for graph, manifest in manifests.items()}
    assert all(error <= 1e-4 for error in errors.values())
    assert any(error > 0 for error in errors.values()), "graphs that compute nothing are always equal"
    catalog = build(scan(repository))
    assert catalog.refused == {}
    assert list(catalog.models) == ["model"]


@pytest.mark.parametrize("case", ["flow of digits", "v without classes"])
def test_a_diffusion_run_is_exported_with_its_sampler_in_place_of_its_steps(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, settings = CASES[case]
    run = write_run(tmp_path / "runs" / "model-2", name, data, settings)
    repository = tmp_path / "repository"
    options = ["--sampler", "dpmpp_2m:3", "--max-batch-size", "17"]
    status = atelier.main(["export", str(run), "--to", str(repository), *options])
    assert status == 0, capsys.readouterr().err
    (manifest,) = published(repository).values()
    assert manifest.graph == "model_dpmpp_2m3"
    assert manifest.max_batch_size == 17
    assert manifest.versions[1].max_abs_error <= 1e-4
    assert list(build(scan(repository)).models) == ["model_dpmpp_2m3"]
