"""UniPC."""

from __future__ import annotations

from itertools import pairwise
from math import exp, expm1, factorial, log

import numpy as np

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise

Point = tuple[float, Array]
"""Where on lambda, and the image that was denoised there."""


def unipc(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """UniPC-2 of Zhao et al. (2023) with B(h) = e^h - 1, which the paper takes under guidance."""
    return (yield from _unipc(denoise, x, sigmas, order=2))


def unipc_3(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """UniPC-3 of Zhao et al. (2023), which the paper takes where there is no guidance."""
    return (yield from _unipc(denoise, x, sigmas, order=3))


def _unipc(denoise: Denoise, x: Array, sigmas: list[float], order: int) -> Program[Array]:
    """Predictor and corrector on the same points over lambda = -ln(sigma), algorithms 5 and 6.

    The denoised image at the end of a step first corrects that step, then predicts the next one: a call a
    step. The order rises over the first steps, and falls over the last ones before the infinite step to 0.
    """
    steps = len(sigmas) - 1
    points: list[Point] = []
    before, p = x, 0
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        here = (-log(sigma), denoised)
        if points:
            x = _update(before, points[0], [*points[1:p], here], here[0])
        points = [here, *points[: order - 1]]
        before, p = x, min(order, step + 1)
        if sigmas[-1] == 0:
            p = min(p, steps - step)
        x = _update(x, here, points[1:p], -log(sigma_next)) if sigma_next > 0 else denoised
        yield Progress(step=step + 1, steps=steps, denoised=denoised)
    return x


def _update(x: Array, start: Point, others: list[Point], end: float) -> Array:
    """Equations 3 and 8 for the denoised image: x from `start` to `end`, by its differences at the others."""
    h = end - start[0]
    b = expm1(-h)
    x = exp(-h) * x - b * start[1]
    ratios = [(point[0] - start[0]) / h for point in others]
    for ratio, weight, point in zip(ratios, _weights(ratios, h), others, strict=True):
        x -= (b * weight / ratio) * (point[1] - start[1])
    return x


def _weights(ratios: list[float], h: float) -> list[float]:
    """Solution a of R a = phi / B(h), theorem 3.1; one half where it is a single number."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi = expm1(-h) / -h
    right = []
    for i in range(1, len(ratios) + 1):
        phi = (phi - 1 / factorial(i)) / -h
        right.append(-h * phi * factorial(i) / expm1(-h))
    powers = np.vander(ratios, increasing=True).T
    solved: list[float] = np.linalg.solve(powers, right).tolist()
    return solved
