"""CycleGAN: unpaired translation between two domains (Zhu et al. 2017, arXiv:1703.10593).

Code (paper): `a_to_b` (G), `b_to_a` (F), `discriminator_a` (D_X), `discriminator_b` (D_Y).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import Batch, DataSpec
from training.data.open import open_data
from training.families.cyclegan.networks import Generator, ImagePool, PatchDiscriminator
from training.families.cyclegan.settings import CycleGANSettings
from training.family import Family, Graph, GraphTensor, OptimizerSpec, Step


def networks(config: CycleGANSettings, data: DataSpec) -> nn.ModuleDict:
    """Both generators, both discriminators and their pools."""
    multiple, least = 2**config.halvings, 3 * 2**config.discriminator_halvings
    size = f"images of {data.name} are {data.width}×{data.height}"
    if data.height % multiple or data.width % multiple:
        raise ValueError(
            f"{size}, but cyclegan.halvings = {config.halvings} needs sides that are multiples of "
            f"{multiple}: resize the images, or lower cyclegan.halvings"
        )
    if min(data.height, data.width) < max(2 * multiple, least):
        raise ValueError(
            f"{size}, but cyclegan.halvings = {config.halvings} needs sides of at least {2 * multiple} and "
            f"cyclegan.discriminator_halvings = {config.discriminator_halvings} of at least {least}: "
            f"resize the images, or lower these settings"
        )
    shape = (data.channels, data.height, data.width)
    return nn.ModuleDict(
        {
            "a_to_b": Generator(config, data.channels),
            "b_to_a": Generator(config, data.channels),
            "discriminator_a": PatchDiscriminator(config, data.channels),
            "discriminator_b": PatchDiscriminator(config, data.channels),
            "pool_a": ImagePool(config.pool_size, shape),
            "pool_b": ImagePool(config.pool_size, shape),
        }
    )


def optimizers(config: CycleGANSettings) -> dict[str, OptimizerSpec]:
    """One optimizer for both generators, one for both discriminators."""
    betas = (config.beta1, 0.999)
    return {
        "generators": OptimizerSpec(networks=("a_to_b", "b_to_a"), lr=config.lr, betas=betas),
        "discriminators": OptimizerSpec(
            networks=("discriminator_a", "discriminator_b"), lr=config.discriminator_lr, betas=betas
        ),
    }


def step(s: Step) -> dict[str, Tensor]:
    """One update of the generators, then one of the discriminators (section 3 of the paper)."""
    config, nets = s.config, s.networks
    a, b = s.batch.images, _targets(s.batch)

    fake_b, fake_a = nets["a_to_b"](a), nets["b_to_a"](b)
    adversarial = _towards(nets["discriminator_a"](fake_a), 1.0)
    adversarial = adversarial + _towards(nets["discriminator_b"](fake_b), 1.0)
    back_a = nets["b_to_a"](_noisy(fake_b, config.cycle_noise, s.generator))
    way_b = fake_a if config.cycle_b_teaches_both else fake_a.detach()
    back_b = nets["a_to_b"](_noisy(way_b, config.cycle_noise, s.generator))
    cycle_a, cycle_b = F.l1_loss(back_a, a), F.l1_loss(back_b, b)
    loss = adversarial + config.cycle_weight_a * cycle_a + config.cycle_weight_b * cycle_b
    identity_weight = identity_weight_at(config, s.step / s.steps)
    if identity_weight > 0:
        identity = F.l1_loss(nets["a_to_b"](b), b) + F.l1_loss(nets["b_to_a"](a), a)
        loss = loss + identity_weight * identity
    s.update("generators", loss)

    shown_a, shown_b = nets["pool_a"](fake_a, s.generator), nets["pool_b"](fake_b, s.generator)
    loss_a = _towards(nets["discriminator_a"](a), 1.0) + _towards(nets["discriminator_a"](shown_a), 0.0)
    loss_b = _towards(nets["discriminator_b"](b), 1.0) + _towards(nets["discriminator_b"](shown_b), 0.0)
    s.update("discriminators", (loss_a + loss_b) / 2)

    losses = {"adversarial": adversarial, "cycle_a": cycle_a, "cycle_b": cycle_b}
    losses |= {"discriminator_a": loss_a / 2, "discriminator_b": loss_b / 2}
    return {name: value.detach() for name, value in losses.items()}


def identity_weight_at(config: CycleGANSettings, progress: float) -> float:
    """Weight of the identity loss when `progress` of the run, from 0 to 1, is done."""
    if config.identity_until == 0:
        return 0.0
    return config.identity_weight * max(0.0, 1.0 - progress / config.identity_until)


@torch.no_grad()
def sample(
    config: CycleGANSettings, networks: nn.ModuleDict, data: DataSpec, count: int, generator: torch.Generator
) -> Tensor:
    """Of each of some held-out pairs: a, its translation, b; then b, its translation, a.

    The pairs are spread evenly over the held-out images. Where no truth is known, the way back stands in its
    place.
    """
    a, b = (x.to(generator.device) for x in _held_out(data, math.ceil(count / 6)))
    fake_b, fake_a = networks["a_to_b"](a), networks["b_to_a"](b)
    ends = (b, a) if _paired(data) else (networks["b_to_a"](fake_b), networks["a_to_b"](fake_a))
    return torch.stack([a, fake_b, ends[0], b, fake_a, ends[1]], dim=1).flatten(0, 1)[:count]


@torch.no_grad()
def evaluate(
    config: CycleGANSettings,
    networks: nn.ModuleDict,
    data: DataSpec,
    batch: Batch,
    generator: torch.Generator,
) -> dict[str, float]:
    """Mean PSNR in dB of each translation to the truth; of each way back, where no truth is known."""
    a, b = batch.images, _targets(batch)
    fake_b, fake_a = networks["a_to_b"](a), networks["b_to_a"](b)
    if _paired(data):
        return {"psnr_a_to_b": float(psnr(fake_b, b).mean()), "psnr_b_to_a": float(psnr(fake_a, a).mean())}
    back_a, back_b = networks["b_to_a"](fake_b), networks["a_to_b"](fake_a)
    return {"psnr_cycle_a": float(psnr(back_a, a).mean()), "psnr_cycle_b": float(psnr(back_b, b).mean())}


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each of n images in [-1, 1] to the truth, dB, [n]."""
    error = (images - truth).square().flatten(1).mean(dim=1)
    return 10 * (4.0 / error.clamp(min=1e-10)).log10()


def graphs(config: CycleGANSettings, networks: nn.ModuleDict, data: DataSpec) -> Sequence[Graph]:
    """One graph a direction, for images of any size that the halvings allow."""
    shape, multiple = (data.channels, -1, -1), 2**config.halvings
    return [
        Graph(
            role=role,
            module=networks[role],
            inputs=(GraphTensor(name="image", shape=shape, multiple_of=multiple),),
            outputs=(GraphTensor(name="translated", shape=shape, multiple_of=multiple),),
        )
        for role in ("a_to_b", "b_to_a")
    ]


def _towards(verdict: Tensor, label: float) -> Tensor:
    """Least-squares adversarial loss (Mao et al. 2017)."""
    return (verdict - label).square().mean()


def _noisy(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    if sigma == 0:
        return images
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return images + sigma * noise.to(images)


def _paired(data: DataSpec) -> bool:
    """Whether held-out images have a truth: data sets that can lack it say so in their options."""
    return bool((data.options or {}).get("paired", True))


def _held_out(data: DataSpec, rows: int) -> tuple[Tensor, Tensor]:
    return _open_held_out(data.name, tuple(sorted((data.options or {}).items())), rows)


# The grid is drawn over and over, and a folder takes its time to read.
@functools.lru_cache(maxsize=1)
def _open_held_out(name: str, options: tuple[tuple[str, Any], ...], rows: int) -> tuple[Tensor, Tensor]:
    held_out = open_data(name, **dict(options)).held_out
    indices = np.linspace(0, len(held_out), rows, endpoint=False).astype(np.int64)
    batch = held_out.batch(indices, np.random.default_rng(0))
    return batch.images, _targets(batch)


def _targets(batch: Batch) -> Tensor:
    assert batch.targets is not None, "Family.needs_pairs promises targets"
    return batch.targets


FAMILY = Family(
    name="cyclegan",
    config=CycleGANSettings,
    tasks=("translate",),
    networks=networks,
    optimizers=optimizers,
    step=step,
    averaged=("a_to_b", "b_to_a"),
    sample=sample,
    graphs=graphs,
    evaluate=evaluate,
    needs_pairs=True,
    metadata={
        "paper": "Zhu et al. (2017), Unpaired Image-to-Image Translation using "
        "Cycle-Consistent Adversarial Networks"
    },
)
