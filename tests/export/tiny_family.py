"""A family whose networks are trained by nobody: a decoder, and one that looks at its neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import save
from training.config import TrainConfig
from training.data import DataSpec
from training.family import Family, Graph, GraphTensor, OptimizerSpec, Step

LATENT = GraphTensor(name="latent", shape=(4,))
CLASS_ID = GraphTensor(name="class_id", shape=(1,), dtype=torch.int64, high=3)
SAMPLE = GraphTensor(name="sample", shape=(1, 8, 8))

DATA = DataSpec(
    name="squares",
    channels=1,
    height=8,
    width=8,
    class_labels=("red", "green", "blue"),
    digest="d" * 64,
    count=120,
    options={"size": 8},
    source="Drawn by hand, public domain.",
)


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Settings."""

    width: int = 16
    """Channels."""
    neighbourly: bool = False
    """Whether a row sees the others of its batch."""


class Decoder(nn.Module):
    """Latents and classes to images."""

    def __init__(self, width: int, neighbourly: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.first = nn.Linear(4, width * 4 * 4)
        self.convolve = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, 1, 3, padding=1))
        self.neighbourly = neighbourly

    def forward(self, latent: Tensor, class_id: Tensor) -> Tensor:
        hidden = self.first(latent + self.embed(class_id[:, 0]))
        if self.neighbourly:
            hidden = hidden - hidden.mean(dim=0)
        return torch.tanh(self.convolve(hidden.unflatten(1, (-1, 4, 4))))


def networks(config: TinyConfig, data: DataSpec) -> nn.ModuleDict:
    return nn.ModuleDict({"decoder": Decoder(config.width, config.neighbourly)})


def graphs(config: TinyConfig, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    return [
        Graph(role="decoder", module=networks["decoder"], inputs=(LATENT, CLASS_ID), outputs=(SAMPLE,)),
    ]


def step(step: Step) -> Mapping[str, Tensor]:
    return {}


def sample(
    config: TinyConfig, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
) -> Tensor:
    latent = torch.randn(count, 4, generator=generator)
    images: Tensor = networks["decoder"](latent, torch.arange(count)[:, None] % 3)
    return images


FAMILY = Family(
    name="tiny",
    config=TinyConfig,
    tasks=("generate",),
    networks=networks,
    optimizers=lambda config: {"decoder": OptimizerSpec(networks=("decoder",), lr=1e-3)},
    step=step,
    averaged=("decoder",),
    sample=sample,
    graphs=graphs,
    metadata={"paper": "none"},
)


def write_run(folder: Path, *, seed: int = 0, family: str = "tiny", **settings: object) -> Path:
    """A run with one checkpoint, whose averaged weights are not its last ones."""
    config = TrainConfig(
        family="tiny",
        data="squares",
        seed=seed,
        name=folder.name,
        steps=7,
        settings=TinyConfig(**settings),
    )
    torch.manual_seed(seed)
    last = networks(config.settings, DATA).state_dict()
    averages = {name: value * 0.5 for name, value in last.items()}
    values = {
        "family": family,
        "data": dataclasses.asdict(DATA),
        "config": config.plain(),
        "curve": [],
        "scaler": {},
        "seed": seed,
        "cpu_seconds": 12.3,
        "seconds": 12.5,
    }
    save(folder, 7, {"networks": last, "averages": averages, "optimizers": {}}, values)
    return folder
