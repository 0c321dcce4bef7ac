"""The loss of diffusion models: one expression for five parameterisations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.families.diffusion.settings import DiffusionSettings
from training.preconditioning import BETAS, SCALINGS, noise_level, vp_sigmas


def diffusion_loss(
    config: DiffusionSettings,
    unet: nn.Module,
    images: Tensor,
    class_id: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the network's output F at a random noise level of each image.

    With x = x0 + sigma·n the target is the F for which c_skip·x + c_out·F is x0: the noise, the velocity
    or the image, by the parameterisation. `images` [n, c, h, w], `class_id` [n, 1].
    """
    sigma = draw_sigma(config, len(images), generator).to(images.device)
    noise = gaussian(images.shape, generator).to(images.device)
    x = images + sigma * noise
    c_in, c_skip, c_out = SCALINGS[config.prediction](sigma, config.sigma_data)
    level = noise_level(config.schedule, sigma[:, :, 0, 0], config.timesteps)
    prediction: Tensor = unet(c_in * x, level, class_id).float()
    target = (images - c_skip * x) / c_out
    error = (prediction - target).square().mean(dim=(1, 2, 3), keepdim=True)
    return (min_snr_weight(config, sigma, c_out) * error).mean()


def draw_sigma(config: DiffusionSettings, rows: int, generator: torch.Generator) -> Tensor:
    """Noise levels to train at [rows, 1, 1, 1]: of a uniform timestep of a variance-preserving schedule,
    log-normal for edm (Karras et al. 2022) and flow, where it makes t logit-normal (Esser et al. 2024)."""
    if config.schedule in BETAS:
        steps = torch.randint(config.timesteps, (rows,), generator=generator, device=generator.device)
        sigmas = vp_sigmas(config.schedule, config.timesteps).to(steps.device)[steps].float()
        return sigmas[:, None, None, None]
    mean, std = config.log_sigma
    return (mean + std * gaussian((rows, 1, 1, 1), generator)).exp()


def min_snr_weight(config: DiffusionSettings, sigma: Tensor, c_out: Tensor) -> Tensor:
    """Hang et al. (2023): min(SNR, gamma) on the error of the image, so times c_out² on that of F."""
    if config.min_snr_gamma is None:
        return torch.ones_like(sigma)
    return sigma.pow(-2).clamp(max=config.min_snr_gamma) * c_out.square()


def drop_labels(
    class_id: Tensor | None, null: int, probability: float, generator: torch.Generator
) -> Tensor | None:
    """Class ids [n, 1] of which a share is replaced by the null class."""
    if class_id is None:
        return None
    draws = torch.rand((len(class_id), 1), generator=generator, device=generator.device)
    return class_id.masked_fill((draws < probability).to(class_id.device), null)


def gaussian(shape: Any, generator: torch.Generator) -> Tensor:
    """Standard normal numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
