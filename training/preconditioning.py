"""How a denoiser's output becomes the denoised image: one table for five parameterisations.

Everything is written for x = x0 + sigma·n with sigma = noise / signal amplitude. A network F is given
`c_in`·x and the noise level `c_noise`(sigma), and the denoised image is `c_skip`·x + `c_out`·F. So one
loss and one sampler serve epsilon, x0, v, EDM and flow alike. Serving has the same table in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Scaling(NamedTuple):
    """Coefficients of the shape of sigma."""

    c_in: Tensor
    """What x is multiplied by before the network sees it."""
    c_skip: Tensor
    """How much of x is in the denoised image."""
    c_out: Tensor
    """How much of the network's output is in the denoised image."""


def edm(sigma: Tensor, sigma_data: float) -> Scaling:
    """Karras et al. (2022), table 1: unit variance in, unit variance out."""
    total = sigma**2 + sigma_data**2
    return Scaling(total.rsqrt(), sigma_data**2 / total, sigma * sigma_data * total.rsqrt())


def flow(sigma: Tensor, sigma_data: float) -> Scaling:
    """Rectified flow (Liu et al. 2023): x_t = (1 - t)·x0 + t·n with t = sigma / (1 + sigma), F = n - x0."""
    return Scaling(1 / (1 + sigma), 1 / (1 + sigma), -sigma / (1 + sigma))


def epsilon(sigma: Tensor, sigma_data: float) -> Scaling:
    """Ho et al. (2020): F is the noise n, x is fed with unit variance."""
    return Scaling((1 + sigma**2).rsqrt(), torch.ones_like(sigma), -sigma)


def x0(sigma: Tensor, sigma_data: float) -> Scaling:
    """F is the denoised image itself."""
    return Scaling((1 + sigma**2).rsqrt(), torch.zeros_like(sigma), torch.ones_like(sigma))


def v(sigma: Tensor, sigma_data: float) -> Scaling:
    """Salimans and Ho (2022): F = alpha·n - (1 - alpha²)^½·x0, with alpha² = 1 / (1 + sigma²)."""
    total = 1 + sigma**2
    return Scaling(total.rsqrt(), 1 / total, -sigma * total.rsqrt())


SCALINGS: dict[str, Callable[[Tensor, float], Scaling]] = {
    "edm": edm,
    "flow": flow,
    "epsilon": epsilon,
    "x0": x0,
    "v": v,
}
"""Parameterisations by name: (sigma, sigma_data) to coefficients. Only `edm` reads sigma_data."""


def linear_betas(timesteps: int) -> Tensor:
    """Ho et al. (2020): betas rise from 1e-4 to 0.02 over 1,000 timesteps, stretched to others; float64."""
    return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64) * (1000 / timesteps)


def cosine_betas(timesteps: int) -> Tensor:
    """Nichol and Dhariwal (2021), eq. 17, betas clipped at 0.999; float64 [timesteps]."""
    time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


BETAS: dict[str, Callable[[int], Tensor]] = {"vp_linear": linear_betas, "vp_cosine": cosine_betas}
"""Variance-preserving schedules by name: number of timesteps to betas."""

LEAST_TIMESTEPS = {"vp_linear": 21, "vp_cosine": 2}
"""Timesteps that a schedule needs: with 20 the last of the linear betas is 1, and no image is left."""


@lru_cache
def vp_sigmas(kind: str, timesteps: int) -> Tensor:
    """Noise level of each timestep of a variance-preserving schedule, rising; float64 [timesteps]."""
    alpha_bar = torch.cumprod(1 - BETAS[kind](timesteps), dim=0)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def vp_timestep(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """Timestep of a noise level, fractional between two discrete ones, linear in ln(sigma)."""
    levels = sigmas.log().to(sigma)
    at = sigma.log()
    above = torch.searchsorted(levels, at.contiguous()).clamp(1, len(levels) - 1)
    low, high = levels[above - 1], levels[above]
    return (above - 1 + (at - low) / (high - low)).clamp(0, len(levels) - 1)


def noise_level(kind: str, sigma: Tensor, timesteps: int) -> Tensor:
    """`c_noise`: how the schedule `kind` tells the network of sigma."""
    return NOISE_LEVELS[kind](sigma, timesteps)


NOISE_LEVELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "edm": lambda sigma, timesteps: sigma.log() / 4,
    "flow": lambda sigma, timesteps: sigma / (1 + sigma),
    "vp_linear": lambda sigma, timesteps: vp_timestep(sigma, vp_sigmas("vp_linear", timesteps)),
    "vp_cosine": lambda sigma, timesteps: vp_timestep(sigma, vp_sigmas("vp_cosine", timesteps)),
}
"""`c_noise` by schedule: ln(sigma) / 4, the flow's time, or the (fractional) training timestep."""
