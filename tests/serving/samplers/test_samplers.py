"""Samplers against the closed form: for normal data the denoiser and the way of every point are known."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from serving.calls import Array, Call, Progress
from serving.manifest import NoiseSchedule, Parameterization, Sampling
from serving.samplers import FEW_STEP, SAMPLERS, Denoise, Denoised, offered, sampler, split
from serving.samplers.schedules import SPACINGS, exponential, sigmas

MEAN = 0.3
DEVIATION = 0.5
SCHEDULES = {
    "edm": NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80),
    "flow": NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=999),
    "vp_linear": NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157.4),
    "vp_cosine": NoiseSchedule(kind="vp_cosine", sigma_min=0.0064, sigma_max=20291),
}
EDM = SCHEDULES["edm"]
DETERMINISTIC = ("ddim", "dpmpp_2m", "euler", "heun", "lms", "unipc", "unipc_3")
ANCESTRAL = ("ddpm", "dpmpp_2m_sde", "euler_ancestral")


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
    kind: str = "edm",
    **options: float,
) -> tuple[Array, int, list[Progress]]:
    """What a sampler returns, the number of its calls, and the progress that it reported."""

    def none(step: int) -> Array:
        raise AssertionError(f"{name} asked for noise")

    program = sampler(name, kind)(denoise, x, levels, noise or none, **options)
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


def spread_start(levels: list[float]) -> Array:
    """Points within two standard deviations of where x lies at the greatest level, in float64."""
    return MEAN + np.linspace(-2, 2, 9) * np.hypot(DEVIATION, levels[0])


def error(name: str, kind: str, levels: list[float]) -> float:
    """Largest distance from the flow at the last of the levels."""
    start = spread_start(levels)
    reached, _, _ = walk(name, start, levels, kind=kind)
    return float(np.abs(reached - flow_of(start, levels[0], levels[-1])).max())


@pytest.mark.parametrize(
    ("name", "order"),
    [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3), ("lms", 4), ("unipc_3", 4)],
)
def test_a_sampler_converges_to_the_flow_at_the_order_of_its_paper(name: str, order: int) -> None:
    """Between two levels above 0. The corrector of UniPC raises its order by one; fourth order is nearly
    reached, since the first steps of a multistep method are of a lower one."""
    errors = [error(name, "edm", sigmas(EDM, steps)[:-1]) for steps in (32, 64, 128)]
    measured = [np.log2(one / half) for one, half in pairwise(errors)]
    assert measured[-1] == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_sampler_converges_on_every_schedule_down_to_0(name: str, kind: str) -> None:
    coarse, fine = (error(name, kind, sigmas(SCHEDULES[kind], steps)) for steps in (18, 144))
    assert coarse < 0.16
    assert fine < (0.025 if name in ("euler", "ddim") else 0.003)


def test_heun_on_a_flow_is_the_trapezoid_rule_in_its_own_time() -> None:
    """One step of dz/dt = (z - denoised) / t on z = (1 - t) x, worked out in t."""
    t, t_next, z = 0.999, 0.9, np.array([1.3])
    levels = [t / (1 - t), t_next / (1 - t_next)]

    def slope(z: Array, t: float) -> Array:
        x, sigma = z / (1 - t), t / (1 - t)
        return (z - (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)) / t

    first = slope(z, t)
    second = slope(z + (t_next - t) * first, t_next)
    expected = z + (t_next - t) * (first + second) / 2
    drawn, _, _ = walk("heun", z / (1 - t), levels, kind="flow")
    np.testing.assert_allclose(drawn * (1 - t_next), expected, rtol=1e-9)


def test_heun_on_edm_is_the_trapezoid_rule_in_sigma() -> None:
    sigma, sigma_next, x = 5.0, 3.0, np.array([4.0])

    def slope(x: Array, sigma: float) -> Array:
        return (x - (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)) / sigma

    first = slope(x, sigma)
    second = slope(x + (sigma_next - sigma) * first, sigma_next)
    drawn, _, _ = walk("heun", x, [sigma, sigma_next])
    np.testing.assert_allclose(drawn, x + (sigma_next - sigma) * (first + second) / 2, rtol=1e-9)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_no_digits_are_lost_between_the_greatest_level_and_0(name: str, kind: str, steps: int) -> None:
    levels = sigmas(SCHEDULES[kind], steps)
    start = spread_start(levels)
    double, _, _ = walk(name, start, levels, kind=kind)
    single, _, _ = walk(name, start.astype(np.float32), levels, kind=kind)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_the_data_from_noise(name: str, kind: str) -> None:
    shape = (20_000,)
    levels = sigmas(SCHEDULES[kind], 300)
    start = fresh(1, shape)(0) * np.float32(levels[0])
    drawn, _, _ = walk(name, start, levels, fresh(2, shape), kind=kind)
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(DEVIATION, rel=0.04)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_sampler_draws_the_data_under_every_spacing(name: str, spacing: str, kind: str) -> None:
    levels = sigmas(SCHEDULES[kind], 100, spacing)
    assert error(name, kind, levels) < 0.1


def test_lcm_draws_the_data_of_a_model_that_jumps_to_the_end_of_the_flow() -> None:
    def jump(x: Array, sigma: float) -> Denoised:
        yield Call(graph="distilled", inputs={"x": x})
        return flow_of(x, sigma, 0)

    shape = (20_000,)
    for steps in (1, 4):
        levels = sigmas(SCHEDULES["flow"], steps)
        start = fresh(1, shape)(0) * np.float32(levels[0])
        drawn, calls, _ = walk("lcm", start, levels, fresh(2, shape), denoise=jump)
        assert calls == steps
        assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
        assert drawn.std() == pytest.approx(DEVIATION, rel=0.02)


@pytest.mark.parametrize("name", [*SAMPLERS, *FEW_STEP])
@pytest.mark.parametrize("kind", ["edm", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_sampler_reports_each_step_and_makes_the_calls_it_says(name: str, kind: str, steps: int) -> None:
    levels = sigmas(SCHEDULES[kind], steps)
    start = fresh(1, (3,))(0) * np.float32(levels[0])
    drawn, calls, progress = walk(name, start, levels, fresh(2, (3,)), kind=kind)
    assert calls == (2 * steps - 1 if name.startswith("heun") else steps)
    assert [p.step for p in progress] == list(range(1, steps + 1))
    assert {p.steps for p in progress} == {steps}
    assert all(np.isfinite(p.denoised).all() for p in progress)
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("name", [*SAMPLERS, *FEW_STEP])
def test_what_was_shown_of_a_step_is_not_written_to_afterwards(name: str) -> None:
    levels = sigmas(EDM, 6)
    start = fresh(1, (3,))(0) * np.float32(levels[0])
    kept = start.copy()
    shown = []
    program = sampler(name)(exact, start, levels, fresh(2, (3,)))
    for wanted in program:
        array = wanted.denoised if isinstance(wanted, Progress) else wanted.inputs["x"]
        shown.append((array, array.copy()))
    for array, copy in shown:
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(start, kept)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_asks_for_no_noise(name: str) -> None:
    walk(name, np.ones(3, np.float32), sigmas(EDM, 5))


@pytest.mark.parametrize("name", [*ANCESTRAL, *FEW_STEP])
def test_an_ancestral_sampler_asks_for_the_noise_of_each_step_but_the_last(name: str) -> None:
    asked = []

    def noise(step: int) -> Array:
        asked.append(step)
        return np.zeros(3, np.float32)

    walk(name, np.ones(3, np.float32), sigmas(EDM, 5), noise)
    assert asked == [0, 1, 2, 3]


def test_heun_churns_between_the_levels_of_the_paper_and_takes_fresh_noise_up() -> None:
    """Algorithm 2 of Karras et al. (2022), one step of it, in the paper's letters."""
    asked = []

    def noise(step: int) -> Array:
        asked.append(step)
        return np.array([0.8])

    levels = [80.0, 40.0, 10.0, 0.04, 0.01, 0.0]
    walk("heun_churn", np.array([3.0]), levels, noise)
    assert asked == [1, 2]

    t, t_next, x = 10.0, 4.0, np.array([3.0])
    gamma = np.sqrt(2) - 1
    t_hat = t + gamma * t
    x_hat = x + np.sqrt(t_hat**2 - t**2) * 1.003 * 0.8
    expected, _, _ = walk("heun", x_hat, [t_hat, t_next])
    drawn, _, _ = walk("heun_churn", x, [t, t_next], noise)
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)


def test_ddim_with_eta_1_and_euler_ancestral_are_ddpm() -> None:
    shape = (50,)
    levels = sigmas(EDM, 20)
    start = fresh(1, shape)(0) * np.float32(levels[0])
    ddpm, _, _ = walk("ddpm", start, levels, fresh(2, shape))
    for name, options in (("ddim", {"eta": 1.0}), ("euler_ancestral", {})):
        drawn, _, _ = walk(name, start, levels, fresh(2, shape), **options)
        np.testing.assert_allclose(drawn, ddpm, atol=2e-5)


def test_ddpm_over_all_timesteps_is_the_posterior_of_the_paper() -> None:
    """Equations 6 and 7 of Ho et al., in the paper's own variables, at one step."""
    levels = sigmas(SCHEDULES["vp_linear"], 1000)
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


def test_lms_on_even_steps_is_adams_bashforth() -> None:
    """Over five even steps of a slope that is a cubic in sigma, the last one exact from four known slopes."""

    def cubic(x: Array, sigma: float) -> Denoised:
        yield Call(graph="cubic", inputs={"x": x})
        return x - sigma * (sigma**3 - 2 * sigma)

    levels = [5.0, 4.0, 3.0, 2.0, 1.0]
    reached, _, _ = walk("lms", np.array([0.0]), levels, denoise=cubic)
    before, _, _ = walk("lms", np.array([0.0]), levels[:-1], denoise=cubic)
    integral = (1**4 / 4 - 1**2) - (2**4 / 4 - 2**2)
    assert reached - before == pytest.approx(integral)


def test_a_name_may_end_in_a_spacing() -> None:
    assert split("dpmpp_2m") == ("dpmpp_2m", None)
    assert split("dpmpp_2m_sde") == ("dpmpp_2m_sde", None)
    assert split("dpmpp_2m_sde_karras") == ("dpmpp_2m_sde", "karras")
    assert sampler("unipc_exponential") is sampler("unipc")
    every = {f"{name}_{spacing}" for name in (*SAMPLERS, *FEW_STEP) for spacing in SPACINGS}
    assert every.isdisjoint({*SAMPLERS, *FEW_STEP})


@pytest.mark.parametrize(
    "name", ["eular", "euler_", "karras", "_karras", "euler_karas", "heun_unit_time", ""]
)
def test_an_unknown_name_is_answered_with_the_samplers_and_spacings_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"sampler '{name}' is not one of .*dpmpp_2m.*_exponential, _karras"):
        split(name)


def test_few_step_samplers_are_offered_by_distilled_models_alone() -> None:
    parameterization = Parameterization(prediction="edm")
    plain = Sampling(parameterization=parameterization, schedule=EDM, sampler="heun", steps=1)
    distilled = Sampling(
        parameterization=parameterization, schedule=EDM, sampler="heun", steps=1, distilled=True
    )
    assert "lcm" not in offered(plain)
    assert set(offered(distilled)) == {*offered(plain), "lcm"}
    with pytest.raises(ValueError, match="'lcm' is not one of"):
        split("lcm", offered(plain))
    assert split("lcm_karras", offered(distilled)) == ("lcm", "karras")


def test_exponential_spacing_leaves_no_error_to_the_exponential_integrators_of_a_known_image() -> None:
    """Where the denoised image is constant, any step of DPM-Solver++ and UniPC is exact."""

    def constant(x: Array, sigma: float) -> Denoised:
        yield Call(graph="constant", inputs={"x": x})
        return np.full_like(x, 0.25)

    levels = exponential(EDM, 3).tolist()
    start = np.array([50.0])
    expected = 0.25 + (start - 0.25) * levels[-1] / levels[0]
    for name in ("dpmpp_2m", "unipc", "unipc_3"):
        reached, _, _ = walk(name, start, levels, denoise=constant)
        np.testing.assert_allclose(reached, expected, rtol=1e-9)
