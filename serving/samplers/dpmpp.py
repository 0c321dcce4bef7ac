"""DPM-Solver++."""

from __future__ import annotations

from itertools import pairwise
from math import expm1, log, sqrt

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
            h = log(sigma / sigma_next)
            x = (sigma_next / sigma) * x - expm1(-h) * denoised
            if denoised_before is not None:
                r = h_before / h
                x -= (expm1(-h) / (2 * r)) * (denoised - denoised_before)
            denoised_before, h_before = denoised, h
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """SDE-DPM-Solver++(2M), Lu et al. (2022), appendix: the same for the reverse diffusion SDE.

    The ancestral counterpart of `dpmpp_2m`: x decays twice as fast in lambda, and noise makes up for it.
    """
    denoised_before = None
    h_before = 0.0
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log(sigma / sigma_next)
            x = (sigma_next / sigma) ** 2 * x - expm1(-2 * h) * denoised
            if denoised_before is not None:
                r = h_before / h
                x -= (expm1(-2 * h) / (2 * r)) * (denoised - denoised_before)
            x += sigma_next * sqrt(-expm1(-2 * h)) * noise(step)
            denoised_before, h_before = denoised, h
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x
