"""Samplers as linear recurrences: the same way down, with no more kept than the method needs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from export.recurrence import Recurrence, StochasticSamplerError, recurrence, trace
from serving.calls import Array, Program
from serving.manifest import NoiseSchedule
from serving.samplers import Denoise, Denoised, Noise, sampler
from serving.samplers.schedules import sigmas

STATES = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3, "unipc_3": 4, "lms": 4}
"""x, and for lack of one term what is known of earlier denoised images."""
STOCHASTIC = ("ddpm", "dpmpp_2m_sde", "euler_ancestral", "heun_churn", "lcm")
SCHEDULES = {
    "edm": NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80),
    "flow": NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=999),
    "vp_linear": NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157.4),
    "vp_cosine": NoiseSchedule(kind="vp_cosine", sigma_min=0.0064, sigma_max=20291),
}
NOISE = np.random.default_rng(0).standard_normal(5)


def bend(x: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """A denoised image that is nothing like linear in x."""
    return np.tanh(2 * x / (1 + sigma)) + 0.1 * np.cos(sigma)


def sampled(name: str, schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """What the sampler itself returns."""

    def denoise(x: Array, sigma: float) -> Denoised:
        return bend(x, sigma)
        yield

    levels = sigmas(schedule, steps)
    program = sampler(name, schedule.kind)(denoise, levels[0] * NOISE, levels, lambda step: NOISE)
    while True:
        try:
            next(program)
        except StopIteration as stop:
            return stop.value


def recurred(steps: Recurrence) -> NDArray[np.float64]:
    """What the recurrence returns."""
    states = steps.start[:, None] * NOISE
    for sigma, decay, gain in zip(steps.levels, steps.decay, steps.gain, strict=True):
        denoised = bend(states[0], sigma)
        states = gain[:, None] * denoised + decay @ (states - denoised)
    return states[0]


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 50])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", STATES)
def test_the_recurrence_of_a_sampler_ends_where_the_sampler_does(name: str, kind: str, steps: int) -> None:
    levels = sigmas(SCHEDULES[kind], steps)
    found = recurrence(sampler(name, SCHEDULES[kind].kind), levels, levels[0])
    np.testing.assert_allclose(recurred(found), sampled(name, SCHEDULES[kind], steps), atol=1e-7)


@pytest.mark.parametrize("name", STATES)
def test_no_more_is_kept_than_the_method_needs(name: str) -> None:
    levels = sigmas(SCHEDULES["flow"], 20)
    assert len(recurrence(sampler(name, "flow"), levels, levels[0]).start) == STATES[name]


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_a_sampler_of_one_state_keeps_its_own_arithmetic(name: str) -> None:
    levels = sigmas(SCHEDULES["flow"], 20)
    found = recurrence(sampler(name, "flow"), levels, levels[0])
    assert (found.gain.astype(np.float32) == 1).all()
    ratios = np.array(levels[1:]) / np.array(levels[:-1])
    np.testing.assert_array_equal(found.decay[:, 0, 0].astype(np.float32), ratios.astype(np.float32))


def test_the_trace_of_euler_is_the_product_of_its_steps() -> None:
    levels, asked = trace(sampler("euler"), [8.0, 4.0, 1.0, 0.0], 8.0)
    assert levels == [8.0, 4.0, 1.0]
    np.testing.assert_allclose(
        asked,
        [
            [8, 0, 0, 0],
            [4, 1 / 2, 0, 0],
            [1, 1 / 8, 3 / 4, 0],
            [0, 0, 0, 1],
        ],
    )


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_sampler_that_draws_noise_is_refused(name: str) -> None:
    with pytest.raises(StochasticSamplerError):
        recurrence(sampler(name), sigmas(SCHEDULES["edm"], 5), 80.0)


def test_a_sampler_that_nobody_thought_of_has_one_too() -> None:
    def leapfrog(denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
        """Each step from the image before the last: as much as a user could write."""
        before = x
        for sigma, sigma_next in pairwise(sigmas):
            denoised = yield from denoise(x, sigma)
            x, before = denoised + (sigma_next / sigma) * (0.5 * x + 0.5 * before - denoised), x
        return x

    found = recurrence(leapfrog, [8.0, 6.0, 4.0, 2.0, 1.0, 0.5], 8.0)
    levels, asked = trace(leapfrog, [8.0, 6.0, 4.0, 2.0, 1.0, 0.5], 8.0)
    assert len(found.start) == 2
    units = np.eye(len(levels) + 1)
    states = found.start[:, None] * units[0]
    for call, (decay, gain) in enumerate(zip(found.decay, found.gain, strict=True)):
        np.testing.assert_allclose(states[0], asked[call], atol=1e-12)
        states = gain[:, None] * units[call + 1] + decay @ (states - units[call + 1])
    np.testing.assert_allclose(states[0], asked[-1], atol=1e-12)
