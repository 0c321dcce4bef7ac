"""A sampler as a linear recurrence, so that a graph can run it: coefficients instead of Python.

What a deterministic sampler computes from the noise and the denoised images is linear in them. So it is run
once on coefficients, with unit vectors in place of images, and what comes out is the matrix that leads from
its inputs to every x that it asks about. The state-space realization of that matrix (Kalman 1963; for
time-varying systems Dewilde and van der Veen 1998, ch. 5) is the least that has to be kept from one call to
the next: x alone for DDIM, x and the last denoised image for DPM-Solver++ 2M, and so on for any sampler.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.calls import Array, Call, Tensors
from serving.samplers import Sampler

Matrix = NDArray[np.float64]

_NEGLIGIBLE = 1e-9
"""Images are of the order of 1: what weighs less than this in all that is to come need not be remembered."""


class StochasticSamplerError(ValueError):
    """A sampler that draws noise on its way, which a recurrence of coefficients does not."""


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """The states of a sampler, the first of which is x: what call k denoises is x_k = state_k[0].

    With the denoised image d_k of the call, state_k+1 = `gain`[k]·d_k + `decay`[k] @ (state_k - d_k). Written
    with the difference, as samplers are, no digits are lost where sigma is in the thousands, and for DDIM and
    Euler it is their very arithmetic. After the last call x is the result.
    """

    levels: tuple[float, ...]
    """Noise level of each call."""
    start: Matrix
    """[states]: what the noise is multiplied by in the beginning."""
    decay: Matrix
    """[calls, states, states]."""
    gain: Matrix
    """[calls, states]."""


def recurrence(sampler: Sampler, sigmas: list[float], start_scale: float) -> Recurrence:
    """The recurrence of a sampler on these noise levels, from standard normal noise times `start_scale`.

    Raises `StochasticSamplerError` where the sampler draws noise.
    """
    levels, asked = trace(sampler, sigmas, start_scale)
    calls = len(levels)
    bases = [_basis(asked[call:, : call + 1]) for call in range(calls + 1)]
    states = max(len(basis) for basis in bases)
    decay, gain = np.zeros((calls, states, states)), np.zeros((calls, states))
    for call, (before, after) in enumerate(pairwise(bases)):
        matrix = after[:, :-1] @ np.linalg.pinv(before)
        decay[call, : len(after), : len(before)] = matrix
        gain[call, : len(after)] = after[:, -1] + matrix.sum(axis=1)
    start = np.zeros(states)
    start[0] = asked[0, 0]
    return Recurrence(levels=tuple(levels), start=start, decay=decay, gain=gain)


def trace(sampler: Sampler, sigmas: list[float], start_scale: float) -> tuple[list[float], Matrix]:
    """The noise level of each call, and [calls + 1, calls + 1] coefficients of each x asked about, the last
    row being the result: of the noise in the first column, then of the denoised image of each call."""
    calls = len(_run(sampler, sigmas, np.zeros(0), lambda call: np.zeros(0))[0])
    units = np.eye(calls + 1)
    levels, asked = _run(sampler, sigmas, start_scale * units[0], lambda call: units[call + 1].copy())
    return levels, np.array(asked)


def _run(sampler: Sampler, sigmas: list[float], x: Matrix, image: Any) -> tuple[list[float], list[Matrix]]:
    """Runs a sampler, `image(call)` standing for the denoised image of a call."""
    levels: list[float] = []
    asked: list[Matrix] = []

    def denoise(x: Any, sigma: float) -> Generator[Call, Tensors, Any]:
        levels.append(sigma)
        asked.append(x.copy())
        return image(len(levels) - 1)
        yield  # a generator, as samplers expect, that has nothing to ask

    def noise(step: int) -> Array:
        raise StochasticSamplerError

    program = sampler(denoise, x, sigmas, noise)  # type: ignore[arg-type]  # float64, to lose no digits
    while True:
        try:
            next(program)
        except StopIteration as stop:
            return levels, [*asked, stop.value]


def _basis(future: Matrix) -> Matrix:
    """A basis [states, inputs] of the rows of `future`: the first row, and unit vectors for what the others
    hold besides."""
    first = future[:1]
    others = future - future @ np.linalg.pinv(first) @ first
    _, weights, directions = np.linalg.svd(others, full_matrices=False)
    return np.concatenate([first, directions[weights > _NEGLIGIBLE]])
