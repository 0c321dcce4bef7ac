"""Linear multistep."""

from __future__ import annotations

from itertools import pairwise
from math import prod, sqrt

from serving.calls import Array, Program, Progress
from serving.samplers import Denoise, Noise

_ORDER = 4


def lms(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
    """Linear multistep of order 4 (Adams-Bashforth, as in k-diffusion): one call a step.

    The slope (x - denoised) / sigma of the probability flow is extrapolated from where it was known last; the
    first steps are of orders 1, 2 and 3.
    """
    nodes: list[float] = []
    slopes: list[Array] = []
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from denoise(x, sigma)
        nodes = [sigma, *nodes[: _ORDER - 1]]
        slopes = [(x - denoised) / sigma, *slopes[: _ORDER - 1]]
        # The weights add up to sigma_next - sigma. Euler's step first: no digits are lost at great sigmas.
        x = denoised + sigma_next * slopes[0]
        for weight, slope in zip(_weights(nodes, sigma_next)[1:], slopes[1:], strict=True):
            x += weight * (slope - slopes[0])
        yield Progress(step=step + 1, steps=len(sigmas) - 1, denoised=denoised)
    return x


def _weights(nodes: list[float], end: float) -> list[float]:
    """Integral from nodes[0] to `end` of the Lagrange polynomial of each node, of up to four.

    By the two points of Gauss and Legendre, which are exact up to degree 3.
    """
    middle, half = (nodes[0] + end) / 2, (end - nodes[0]) / 2
    points = (middle - half / sqrt(3), middle + half / sqrt(3))
    return [
        half * sum(prod((at - other) / (node - other) for other in nodes if other != node) for at in points)
        for node in nodes
    ]
