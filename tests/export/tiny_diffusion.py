"""Runs of real families on the digits, small and trained by nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from training.checkpoint import save
from training.config import TrainConfig
from training.data.open import open_data
from training.families import FAMILIES
from training.family import Family
from training.resolve import resolve

UNET = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "prediction": "flow"}
VAE = {"architecture": "mlp", "hidden": 32, "decoder_noise": 0.1}


def write_digits_run(folder: Path, family: str = "diffusion", **settings: object) -> Path:
    """A run whose weights are moved off the zeros that some of them begin with."""
    chosen: Family = resolve(FAMILIES, family, "family")
    spec = open_data("digits").train.spec
    config = TrainConfig(
        family=family,
        data="digits",
        name=folder.name,
        steps=1,
        settings=chosen.config(**(settings or {"diffusion": UNET, "vae": VAE}[family])),
    )
    torch.manual_seed(0)
    weights = chosen.networks(config.settings, spec).state_dict()
    moved = {
        name: value + 0.05 * torch.randn_like(value) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    averages = {name: value for name, value in moved.items() if name.split(".")[0] in chosen.averaged}
    values = {
        "family": family,
        "data": dataclasses.asdict(spec),
        "config": config.plain(),
        "curve": [],
        "scaler": {},
        "seed": 0,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
    }
    save(folder, 1, {"networks": moved, "averages": averages, "optimizers": {}}, values)
    return folder
