"""DDIM."""

from __future__ import annotations

from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def ddim(
    denoise: Denoise, x: Array, sigmas: list[float], noise: Noise, *, eta: float = 0.0
) -> Program[Array]:
    """Denoising diffusion implicit models, Song et al. (2021), eq. 12 and 16.

    `eta` is 0 for the deterministic process and 1 for the ancestral one. Divided by the signal amplitude
    the paper's sigma_t is `added` below, and its direction pointing to x_t has length `kept`.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        added = eta * sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
        kept = (sigma_next**2 - added**2) ** 0.5
        x = denoised + (kept / sigma) * (x - denoised)
        if added:
            x += added * noise(step)
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
