"""What a run shows of its averaged networks: figures on held-out images, and samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training import randomness
from training.config import TrainConfig
from training.data import DataSpec, ImageData
from training.family import Family


@torch.no_grad()
def held_out_figures(
    family: Family,
    config: TrainConfig,
    networks: nn.ModuleDict,
    spec: DataSpec,
    held_out: ImageData,
    device: torch.device,
) -> dict[str, float]:
    """The family's figures, averaged over at most `evaluate_count` held-out images, as `held_out/<name>`.

    Images and draws are the same every time, so that points of a curve can be compared.
    """
    if family.evaluate is None:
        return {}
    rng = randomness.numpy_rng(config.seed, randomness.HELD_OUT)
    generator = stream_generator(config.seed, randomness.HELD_OUT, device)
    chosen = rng.permutation(len(held_out))[: config.evaluate_count]
    sums: dict[str, float] = {}
    for begin in range(0, len(chosen), config.batch_size):
        indices = chosen[begin : begin + config.batch_size]
        batch = held_out.batch(indices, rng).to(device)
        for name, value in family.evaluate(config.settings, networks, spec, batch, generator).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(indices)
    return {f"held_out/{name}": value / len(chosen) for name, value in sums.items()}


@torch.no_grad()
def samples(
    family: Family, config: TrainConfig, networks: nn.ModuleDict, spec: DataSpec, device: torch.device
) -> Tensor:
    """`sample_count` images [count, channels, height, width] in [-1, 1], from the same noise every time."""
    generator = stream_generator(config.seed, randomness.SAMPLES, device)
    return family.sample(config.settings, networks, spec, config.sample_count, generator)


def stream_generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    """A torch generator of its own for a stream."""
    return torch.Generator(device).manual_seed(randomness.mixed(seed, stream))
