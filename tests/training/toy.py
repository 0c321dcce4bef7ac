"""A family, data and a command line so small that the loop itself can be tested in milliseconds.

Run as a script it is `atelier train` with the family `toy` and the data set `toy` known to it.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data import DATASETS, Batch, DataSpec, Splits
from training.families import FAMILIES
from training.family import Family, OptimizerSpec, Step

COUNT = 50


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Settings of a line through pixels."""

    lr: float = 1e-2
    """Learning rate."""
    widths: tuple[int, ...] = (8,)
    """Hidden widths."""
    dropout: float = 0.1
    """Share of hidden values dropped."""
    clip: float | None = None
    """Gradient norm."""
    fail_at: int = -1
    """Step whose loss is not a number."""


class Wanderer(nn.Module):
    """State without parameters, as an image pool is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))


def networks(config: ToyConfig, data: DataSpec) -> nn.ModuleDict:
    pixels = data.channels * data.height * data.width
    width = config.widths[0]
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, width),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(width, pixels),
    )
    critic = nn.Linear(pixels, 1)
    return nn.ModuleDict({"net": net, "critic": critic, "pool": Wanderer()})


def optimizers(config: ToyConfig) -> Mapping[str, OptimizerSpec]:
    return {
        "net": OptimizerSpec(networks=("net",), lr=config.lr, clip_norm=config.clip),
        "critic": OptimizerSpec(networks=("critic",), lr=config.lr, betas=(0.0, 0.99)),
    }


def step(s: Step) -> Mapping[str, Tensor]:
    real = s.batch.images.flatten(1)
    noise = torch.randn(real.shape, generator=s.generator, device=real.device)
    fake = s.networks["net"](real + 0.1 * noise)
    critic_loss = (s.networks["critic"](fake.detach()) - s.networks["critic"](real)).square().mean()
    s.update("critic", critic_loss)
    loss = (fake - real).square().mean() - 0.01 * s.networks["critic"](fake).mean()
    if s.step == s.config.fail_at:
        loss = loss * float("nan")
    s.update("net", loss)
    s.networks["pool"].seen += len(real)
    return {"net": loss.detach(), "critic": critic_loss.detach()}


def sample(
    config: ToyConfig, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
) -> Tensor:
    shape = (count, data.channels, data.height, data.width)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return networks["net"](noise).view(shape).tanh()


def evaluate(
    config: ToyConfig, networks: nn.ModuleDict, data: DataSpec, batch: Batch, generator: torch.Generator
) -> Mapping[str, float]:
    return {"error": (networks["net"](batch.images) - batch.images.flatten(1)).square().mean().item()}


FAMILY = Family(
    name="toy",
    config=ToyConfig,
    tasks=("generate",),
    networks=networks,
    optimizers=optimizers,
    step=step,
    averaged=("net",),
    sample=sample,
    graphs=lambda config, networks, data: (),
    evaluate=evaluate,
)


class ToyData:
    """Fixed random images."""

    def __init__(self, seed: int, size: int, digest: str) -> None:
        self.spec = DataSpec(
            name="toy",
            channels=1,
            height=size,
            width=size,
            class_labels=("a", "b"),
            digest=digest,
            count=COUNT,
        )
        self.images = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (COUNT, 1, size, size)))

    def __len__(self) -> int:
        return COUNT

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        images = self.images[indices].float() + 0.01 * float(rng.standard_normal())
        return Batch(images=images, labels=torch.from_numpy(indices % 2))


def open_toy(path: str | None, *, size: int = 4, digest: str = "0123456789abcdef") -> Splits:
    return Splits(train=ToyData(0, size, digest), held_out=ToyData(1, size, "held out"))


def register() -> None:
    """Make `toy` known as a family and as data."""
    folder = os.path.dirname(__file__)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    FAMILIES["toy"] = "toy:FAMILY"
    DATASETS["toy"] = "toy:open_toy"


if __name__ == "__main__":
    from training.command import main

    register()
    sys.exit(main(sys.argv[1:]))
