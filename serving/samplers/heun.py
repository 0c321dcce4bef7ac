"""Heun's method."""

from __future__ import annotations

from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def heun(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Second-order deterministic sampler of Karras et al. (2022), algorithm 1: 2·steps - 1 calls."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        slope = (x - denoised) / sigma
        predicted = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            denoised = yield from denoise(predicted, sigma_next)
            slope_next = (predicted - denoised) / sigma_next
            predicted = x + (sigma_next - sigma) * 0.5 * (slope + slope_next)
        x = predicted
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
