"""Sampling in torch, for the grid that a run shows of itself and for pairs to distil from.

Published models are sampled by `serving.samplers`; these two samplers are here so that training needs
nothing of serving.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.families.diffusion.settings import DiffusionSettings
from training.preconditioning import BETAS, SCALINGS, noise_level, vp_sigmas

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x [n, c, h, w], sigma []) to the denoised image."""


def denoiser(
    config: DiffusionSettings, unet: nn.Module, class_id: Tensor | None, null: int, guidance_scale: float
) -> Denoise:
    """The denoised image as a function of x and sigma, guided as by Ho and Salimans (2022).

    Where the settings have a guidance interval it is guided within that alone (Kynkäänniemi et al. 2024).
    """
    above, up_to = config.guidance_interval or (0.0, math.inf)

    def once(x: Tensor, sigma: Tensor, class_id: Tensor | None) -> Tensor:
        sigma = sigma.expand(len(x), 1, 1, 1)
        c_in, c_skip, c_out = SCALINGS[config.prediction](sigma, config.sigma_data)
        level = noise_level(config.schedule, sigma[:, :, 0, 0], config.timesteps)
        prediction: Tensor = unet(c_in * x, level, class_id).float()
        return c_skip * x + c_out * prediction

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = once(x, sigma, class_id)
        if class_id is not None and guidance_scale != 1 and above < sigma <= up_to:
            unconditional = once(x, sigma, torch.full_like(class_id, null))
            denoised = unconditional + guidance_scale * (denoised - unconditional)
        return denoised.clamp(-1, 1) if config.clip_denoised else denoised

    return denoise


def sampling_sigmas(config: DiffusionSettings, steps: int) -> Tensor:
    """Noise levels of `steps` steps, falling and ending in 0; float32 [steps + 1].

    Evenly spaced in t for flow, in sigma^(1/rho) for edm (Karras et al. 2022, eq. 5), in the timestep for
    the variance-preserving schedules.
    """
    low, high = config.sigma_range
    if config.schedule in BETAS:
        at = config.timesteps * torch.arange(steps, 0, -1, dtype=torch.float64) / steps - 1
        sigmas = vp_sigmas(config.schedule, config.timesteps)[at.round().long()]
    elif config.schedule == "flow":
        time = torch.linspace(high / (1 + high), 0, steps + 1, dtype=torch.float64)[:-1]
        sigmas = time / (1 - time)
    else:
        ramp = torch.linspace(high ** (1 / config.rho), low ** (1 / config.rho), steps, dtype=torch.float64)
        sigmas = ramp**config.rho
    return torch.cat([sigmas.float(), torch.zeros(1)])


def start(config: DiffusionSettings, noise: Tensor, sigma: Tensor) -> Tensor:
    """x at the greatest noise level: what the network takes for standard normal noise alone."""
    return noise / SCALINGS[config.prediction](sigma, config.sigma_data).c_in


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's method on the probability flow dx/dsigma = (x - denoised) / sigma; DDIM by another name."""
    for sigma, following in pairwise(sigmas):
        denoised = denoise(x, sigma)
        x = denoised + (x - denoised) * (following / sigma)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun's method, two calls a step and one for the last (Karras et al. 2022, algorithm 1).

    It runs in the time t = sigma / (1 + sigma) of a flow, on z = (1 - t)·x, where dz/dt = (z - denoised) / t:
    in sigma itself the first steps of a flow or of a variance-preserving schedule would be far too long.
    """
    # Not 1 - t, of which float32 keeps few digits where sigma is in the thousands.
    signals = 1 / (1 + sigmas)
    times = sigmas * signals
    z = x * signals[0]

    def slope(z: Tensor, at: int) -> Tensor:
        return (z - denoise(z / signals[at], sigmas[at])) / times[at]

    for step in range(len(sigmas) - 1):
        length = times[step + 1] - times[step]
        first = slope(z, step)
        guess = z + length * first
        z = guess if sigmas[step + 1] == 0 else z + length * (first + slope(guess, step + 1)) / 2
    return z / signals[-1]
