"""Heun's method, with and without churn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise

# Churn of Karras et al. (2022), table 5, for ImageNet-64.
_CHURN = 40.0
_CHURN_MIN, _CHURN_MAX = 0.05, 50.0
_CHURN_NOISE = 1.003

Correction = Callable[[float, float], float]
"""(sigma, sigma_next) to the weight of the second denoised image against the first."""


def heun(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Second-order deterministic sampler of Karras et al. (2022), algorithm 1: 2·steps - 1 calls."""
    return (yield from _heun(denoise, x, sigmas, noise, _in_sigma, churn=0.0))


def heun_churn(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Stochastic sampler of Karras et al. (2022), algorithm 2: Heun from a level raised by fresh noise."""
    return (yield from _heun(denoise, x, sigmas, noise, _in_sigma, churn=_CHURN))


def heun_unit_time(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Heun's method in the time t = sigma / (1 + sigma) of a flow, on z = x / (1 + sigma).

    Schedules that begin close to pure noise reach sigmas of thousands, where the first step is far too long
    for a trapezoid in sigma; t stays below 1.
    """
    return (yield from _heun(denoise, x, sigmas, noise, _in_unit_time, churn=0.0))


def heun_churn_unit_time(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """The stochastic sampler with its steps in the time of a flow."""
    return (yield from _heun(denoise, x, sigmas, noise, _in_unit_time, churn=_CHURN))


def _in_sigma(sigma: float, sigma_next: float) -> float:
    return 0.5 * (sigma / sigma_next - 1)


def _in_unit_time(sigma: float, sigma_next: float) -> float:
    return 0.5 * (sigma / sigma_next - 1) * (1 + sigma_next) / (1 + sigma)


def _heun(
    denoise: Denoise, x: Array, sigmas: list[float], noise: Noise, correction: Correction, *, churn: float
) -> Program[Array]:
    """Euler's step, then the trapezoid's correction of it.

    With slopes d = (z - denoised) / t the trapezoid adds (t_next - t) / 2 · (d_next - d) to Euler's step.
    That is a multiple of the difference of the two denoised images, by which the choice of time comes in.
    """
    steps = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if churn and _CHURN_MIN <= sigma <= _CHURN_MAX:
            gamma = min(churn / steps, 2**0.5 - 1)
            raised = sigma * (1 + gamma)
            x = x + (raised**2 - sigma**2) ** 0.5 * _CHURN_NOISE * noise(step)
            sigma = raised
        denoised = yield from denoise(x, sigma)
        x = denoised + (sigma_next / sigma) * (x - denoised)
        if sigma_next > 0:
            first, denoised = denoised, (yield from denoise(x, sigma_next))
            x = x + correction(sigma, sigma_next) * (denoised - first)
        yield Progress(step=step + 1, steps=steps, denoised=denoised)
    return x
