"""Euler's method, plain and ancestral."""

from __future__ import annotations

from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def euler(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Euler's method on the probability flow ODE dx/dsigma = (x - denoised) / sigma (Karras et al. 2022).

    Written as a mean of x and the denoised image, which loses no digits where sigma is in the thousands.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        x = denoised + (sigma_next / sigma) * (x - denoised)
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x


def euler_ancestral(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Euler's method down to a level below the next one, then noise up to it (k-diffusion, Crowson 2022)."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        up = sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
        down = (sigma_next**2 - up**2) ** 0.5
        x = denoised + (down / sigma) * (x - denoised)
        if up:
            x += up * noise(step)
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
