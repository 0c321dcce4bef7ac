"""DPM-Solver++."""

from __future__ import annotations

from itertools import pairwise
from math import expm1, log

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise


def dpmpp_2m(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """DPM-Solver++(2M), Lu et al. (2022), algorithm 2: second order for one call a step.

    Exact in the linear part over lambda = -ln(sigma), the denoised image extrapolated from the last two. The
    step to sigma = 0 is of first order: there h is infinite and the image is the last denoised one.
    """
    denoised_before = None
    h_before = 0.0
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log(sigma) - log(sigma_next)
            d = denoised
            if denoised_before is not None:
                r = h_before / h
                d = denoised + (denoised - denoised_before) / (2 * r)
            x = (sigma_next / sigma) * x - expm1(-h) * d
            denoised_before, h_before = denoised, h
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
