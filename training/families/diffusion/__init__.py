"""Diffusion: a U-Net that denoises, in the epsilon, x0, v, EDM or flow parameterisation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.data import Batch, DataSpec
from training.families.diffusion.graphs import diffusion_graphs
from training.families.diffusion.loss import diffusion_loss, drop_labels, gaussian
from training.families.diffusion.sampling import denoiser, euler, heun, sampling_sigmas, start
from training.families.diffusion.settings import DiffusionSettings
from training.families.diffusion.unet import UNet
from training.family import Family, OptimizerSpec, Step
from training.preconditioning import BETAS


def networks(config: DiffusionSettings, data: DataSpec) -> nn.ModuleDict:
    """The U-Net, conditional where the data have classes; the class after the last is the null class."""
    unet = UNet(
        image=(data.channels, data.height, data.width),
        classes=len(data.class_labels) + 1 if data.class_labels else 0,
        channels=config.channels,
        multipliers=config.multipliers,
        blocks=config.blocks,
        attention=config.attention,
        unshuffle=config.unshuffle,
        dropout=config.dropout,
        noise_scale=1.0 if config.schedule in BETAS else 100.0,
    )
    return nn.ModuleDict({"unet": unet})


def optimizers(config: DiffusionSettings) -> Mapping[str, OptimizerSpec]:
    """Adam on the U-Net."""
    return {
        "unet": OptimizerSpec(
            networks=("unet",),
            lr=config.lr,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
    }


def step(step: Step) -> Mapping[str, Tensor]:
    """One update of the U-Net."""
    config, batch = step.config, step.batch
    class_id = drop_labels(
        class_ids(batch, step.data), len(step.data.class_labels), config.label_dropout, step.generator
    )
    loss = diffusion_loss(config, step.networks["unet"], batch.images, class_id, step.generator)
    step.update("unet", loss)
    return {"loss": loss.detach()}


@torch.no_grad()
def sample(
    config: DiffusionSettings,
    networks: nn.ModuleDict,
    data: DataSpec,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Images by Euler's method where it (or DDIM, the same) is the default, else Heun's; classes in turn."""
    device = next(networks["unet"].parameters()).device
    class_id = None
    if data.class_labels:
        class_id = (torch.arange(count, device=device) % len(data.class_labels))[:, None]
    noise = gaussian((count, data.channels, data.height, data.width), generator).to(device)
    sigmas = sampling_sigmas(config, config.sample_steps).to(device)
    denoise = denoiser(config, networks["unet"], class_id, len(data.class_labels), config.guidance_scale)
    solve = euler if config.sampler in ("euler", "ddim") else heun
    return solve(denoise, start(config, noise, sigmas[0]), sigmas).clamp(-1, 1)


@torch.no_grad()
def evaluate(
    config: DiffusionSettings,
    networks: nn.ModuleDict,
    data: DataSpec,
    batch: Batch,
    generator: torch.Generator,
) -> Mapping[str, float]:
    """The loss on held-out images."""
    loss = diffusion_loss(config, networks["unet"], batch.images, class_ids(batch, data), generator)
    return {"held_out_loss": float(loss)}


def class_ids(batch: Batch, data: DataSpec) -> Tensor | None:
    """The labels as the network takes them, [n, 1]; None without classes."""
    return batch.labels[:, None] if batch.labels is not None and data.class_labels else None


FAMILY = Family(
    name="diffusion",
    config=DiffusionSettings,
    tasks=("generate",),
    networks=networks,
    optimizers=optimizers,
    step=step,
    averaged=("unet",),
    sample=sample,
    graphs=diffusion_graphs,
    evaluate=evaluate,
    metadata={"paper": "Karras et al. 2022, Liu et al. 2023, Dhariwal and Nichol 2021"},
)
