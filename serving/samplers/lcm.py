"""Latent consistency."""

from __future__ import annotations

from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def lcm(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Multistep consistency sampling, Song et al. (2023), algorithm 1, as Luo et al. (2023) use it.

    Each call jumps to the image, and fresh noise leads back up to the next level. It draws the data only from
    distilled models, whose denoised image is the end of the flow and not the mean of all ends.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        x = denoised
        if sigma_next > 0:
            x = denoised + sigma_next * noise(step)
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
