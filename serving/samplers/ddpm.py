"""DDPM."""

from __future__ import annotations

from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def ddpm(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Ancestral sampling of Ho et al. (2020), eq. 7, over the given levels, with the posterior's variance.

    The posterior of x at the next level given x0 is a normal whose mean lies between them: the share of x
    is sigma_next² / sigma², and the variance sigma_next² (1 - sigma_next² / sigma²).
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        share = (sigma_next / sigma) ** 2
        x = denoised + share * (x - denoised)
        if sigma_next > 0:
            x += sigma_next * (1 - share) ** 0.5 * noise(step)
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
