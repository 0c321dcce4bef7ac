"""Samplers against the closed form: for normal data the denoiser and the way of every point are known."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from serving.calls import Array, Call, Progress
from serving.manifest import NoiseSchedule
from serving.samplers import SAMPLERS, Denoise, Denoised, sampler
from serving.samplers.schedules import exponential, sigmas

MEAN = 0.3
DEVIATION = 0.5
SCHEDULE = NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80)
DETERMINISTIC = {"ddim", "euler", "heun", "dpmpp_2m", "lms", "unipc", "unipc_3"}


def exact(x: Array, sigma: float) -> Denoised:
    """E[x0 | x] for data N(MEAN, DEVIATION²)."""
    yield Call(graph="exact", inputs={"x": x})
    total = DEVIATION**2 + sigma**2
    return (DEVIATION**2 * x + sigma**2 * MEAN) / total


def flow_of(x: Array, sigma: float, sigma_next: float) -> Array:
    """Where the probability flow ODE carries x: its distance from the mean follows the spread of the data."""
    spread = np.sqrt((DEVIATION**2 + sigma_next**2) / (DEVIATION**2 + sigma**2))
    return MEAN + (x - MEAN) * spread


def walk(
    name: str,
    x: Array,
    levels: list[float],
    noise: Callable[[int], Array] | None = None,
    denoise: Denoise = exact,
    **options: float,
) -> tuple[Array, int, list[Progress]]:
    """What a sampler returns, the number of its calls, and the progress that it reported."""

    def none(step: int) -> Array:
        raise AssertionError(f"{name} asked for noise")

    program = sampler(name)(denoise, x, levels, noise or none, **options)
    calls, progress = 0, []
    try:
        while True:
            wanted = next(program)
            if isinstance(wanted, Progress):
                progress.append(wanted)
            else:
                calls += 1
    except StopIteration as stop:
        return stop.value, calls, progress


def fresh(seed: int, shape: tuple[int, ...]) -> Callable[[int], Array]:
    return lambda step: np.random.default_rng([seed, step]).standard_normal(shape, np.float32)


def orders(name: str, levels: Callable[[int], list[float]]) -> Iterator[float]:
    """Measured orders of convergence: by what power the error falls as the steps are doubled.

    In float64, and not down to sigma = 0, whose last step has an error of its own.
    """
    start = np.linspace(-2, 2, 9) * 3
    errors = []
    for steps in (16, 32, 64, 128):
        walked = levels(steps)
        reached, _, _ = walk(name, start, walked)
        errors.append(np.abs(reached - flow_of(start, walked[0], walked[-1])).max())
    for error, half in pairwise(errors):
        yield np.log2(error / half)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_a_sampler_converges_to_the_flow_at_the_order_of_its_paper(name: str, order: int) -> None:
    schedule = NoiseSchedule(kind="edm", sigma_min=0.05, sigma_max=3)
    measured = list(orders(name, lambda steps: exponential(schedule, steps + 1).tolist()))
    assert measured[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_the_data_from_noise(name: str) -> None:
    shape = (20_000,)
    levels = sigmas(SCHEDULE, 400)
    start = fresh(1, shape)(0) * np.float32(levels[0])
    drawn, _, _ = walk(name, start, levels, fresh(2, shape))
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(DEVIATION, rel=0.04)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_sampler_reports_each_step_and_makes_the_calls_it_says(name: str, steps: int) -> None:
    levels = sigmas(SCHEDULE, steps)
    start = fresh(1, (3,))(0) * np.float32(levels[0])
    drawn, calls, progress = walk(name, start, levels, fresh(2, (3,)))
    assert calls == (2 * steps - 1 if name.startswith("heun") else steps)
    assert [p.step for p in progress] == list(range(1, steps + 1))
    assert {p.steps for p in progress} == {steps}
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_a_deterministic_sampler_asks_for_no_noise(name: str) -> None:
    levels = sigmas(SCHEDULE, 5)
    walk(name, np.ones(3, np.float32), levels)


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - DETERMINISTIC - {"heun_churn"}))
def test_an_ancestral_sampler_asks_for_the_noise_of_each_step_but_the_last(name: str) -> None:
    asked = []

    def noise(step: int) -> Array:
        asked.append(step)
        return np.zeros(3, np.float32)

    walk(name, np.ones(3, np.float32), sigmas(SCHEDULE, 5), noise)
    assert asked == [0, 1, 2, 3]


def test_ddim_with_eta_1_and_euler_ancestral_are_ddpm() -> None:
    shape = (50,)
    levels = sigmas(SCHEDULE, 20)
    start = fresh(1, shape)(0) * np.float32(levels[0])
    ddpm, _, _ = walk("ddpm", start, levels, fresh(2, shape))
    for name, options in (("ddim", {"eta": 1.0}), ("euler_ancestral", {})):
        drawn, _, _ = walk(name, start, levels, fresh(2, shape), **options)
        np.testing.assert_allclose(drawn, ddpm, atol=2e-5)


def test_ddpm_over_all_timesteps_is_the_posterior_of_the_paper() -> None:
    """Equations 6 and 7 of Ho et al., in the paper's own variables, at one step."""
    schedule = NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157)
    levels = sigmas(schedule, 1000)
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    t = 500
    np.testing.assert_allclose(levels[:-1], np.sqrt((1 - alpha_bar) / alpha_bar)[::-1], rtol=1e-9)
    x0, n, z = np.float64(0.7), np.float64(-1.1), np.float64(0.4)
    x_t = np.sqrt(alpha_bar[t]) * x0 + np.sqrt(1 - alpha_bar[t]) * n
    mean = (
        np.sqrt(alpha_bar[t - 1]) * betas[t] * x0 + np.sqrt(1 - betas[t]) * (1 - alpha_bar[t - 1]) * x_t
    ) / (1 - alpha_bar[t])
    deviation = np.sqrt((1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * betas[t])
    expected = (mean + deviation * z) / np.sqrt(alpha_bar[t - 1])

    def known(x: Array, sigma: float) -> Denoised:
        yield Call(graph="exact", inputs={"x": x})
        return np.array([x0])

    place = 999 - t
    start = np.array([x0 + levels[place] * n])
    levels = levels[place : place + 2]
    drawn, _, _ = walk("ddpm", start, levels, lambda step: np.array([z]), denoise=known)
    assert drawn[0] == pytest.approx(expected, rel=1e-9)
