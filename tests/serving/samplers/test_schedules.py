import numpy as np
import pytest
import torch

from serving.manifest import LEAST_TIMESTEPS, NoiseSchedule
from serving.samplers.schedules import BETAS, SPACINGS, exponential, sigmas, timestep
from training import preconditioning

KINDS = {
    "edm": NoiseSchedule(kind="edm", sigma_min=0.002, sigma_max=80),
    "flow": NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=999),
    "vp_linear": NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157),
    "vp_cosine": NoiseSchedule(kind="vp_cosine", sigma_min=0.01, sigma_max=2000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("steps", [1, 2, 9, 100, 1000, 1500])
def test_the_levels_fall_from_the_greatest_to_0(kind: str, spacing: str | None, steps: int) -> None:
    levels = sigmas(KINDS[kind], steps, spacing)
    assert len(levels) == steps + 1
    assert all(type(level) is float for level in levels)
    assert levels[-1] == 0
    assert np.all(np.diff(levels) < 0)


def test_karras_spacing_is_that_of_the_paper() -> None:
    """Equation 5 of Karras et al. (2022) with N = 18, worked out by hand at i = 0, 1 and 17."""
    levels = sigmas(KINDS["edm"], 18)
    assert levels[0] == pytest.approx(80)
    expected = (80 ** (1 / 7) + (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17) ** 7
    assert levels[1] == pytest.approx(expected)
    assert levels[17] == pytest.approx(0.002)


def test_flow_levels_are_even_in_time() -> None:
    levels = np.array(sigmas(KINDS["flow"], 9))
    time = levels / (1 + levels)
    np.testing.assert_allclose(np.diff(time), -0.999 / 9)


def test_exponential_levels_have_one_ratio() -> None:
    levels = exponential(KINDS["edm"], 12)
    np.testing.assert_allclose(levels[1:] / levels[:-1], (0.002 / 80) ** (1 / 11))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["karras", "exponential", "logsnr"])
def test_a_spacing_over_sigma_runs_from_the_greatest_level_to_the_least(kind: str, spacing: str) -> None:
    levels = sigmas(KINDS[kind], 7, spacing)
    assert levels[0] == pytest.approx(KINDS[kind].sigma_max)
    assert levels[-2] == pytest.approx(KINDS[kind].sigma_min)


def test_logsnr_levels_are_even_in_the_logarithm_of_the_signal_to_noise_ratio() -> None:
    log_snr = -2 * np.log(sigmas(KINDS["flow"], 12, "logsnr")[:-1])
    np.testing.assert_allclose(np.diff(log_snr), 2 * np.log(999 / 0.001) / 11)


@pytest.mark.parametrize("kind", KINDS)
def test_uniform_levels_are_even_in_the_schedules_own_time(kind: str) -> None:
    schedule = KINDS[kind]
    levels = np.array(sigmas(schedule, 8, "uniform")[:-1])
    time = [timestep(schedule, s) for s in levels] if kind.startswith("vp") else levels / (1 + levels)
    np.testing.assert_allclose(np.diff(time), np.diff(time)[0])


@pytest.mark.parametrize("spacing", ["linear", "cosine"])
def test_the_spacing_of_betas_is_even_in_their_timesteps_between_the_schedules_ends(spacing: str) -> None:
    betas = NoiseSchedule(kind=f"vp_{spacing}", sigma_min=0.002, sigma_max=80)
    levels = sigmas(KINDS["edm"], 8, spacing)[:-1]
    time = [timestep(betas, sigma) for sigma in levels]
    np.testing.assert_allclose(np.diff(time), np.diff(time)[0])
    assert levels[0] == pytest.approx(80)
    assert levels[-1] == pytest.approx(sigmas(betas, 1000)[-2])


def test_more_steps_than_timesteps_visit_levels_between_them() -> None:
    schedule = NoiseSchedule(kind="vp_linear", sigma_min=0.01, sigma_max=157, timesteps=50)
    few, many = sigmas(schedule, 50), sigmas(schedule, 99)
    np.testing.assert_allclose(many[:-1:2], few[:-1])


@pytest.mark.parametrize("kind", ["vp_linear", "vp_cosine"])
def test_variance_preserving_levels_are_those_of_their_timesteps(kind: str) -> None:
    alpha_bar = np.cumprod(1 - BETAS[kind](1000))
    by_timestep = np.sqrt((1 - alpha_bar) / alpha_bar)
    np.testing.assert_allclose(sigmas(KINDS[kind], 10)[:-1], by_timestep[np.arange(999, 0, -100)])
    np.testing.assert_allclose(sigmas(KINDS[kind], 1000)[:-1], by_timestep[::-1])


@pytest.mark.parametrize("kind", ["vp_linear", "vp_cosine"])
def test_a_level_is_found_at_its_timestep_and_between_two(kind: str) -> None:
    schedule = KINDS[kind]
    by_timestep = sigmas(schedule, 1000)[-2::-1]
    assert timestep(schedule, by_timestep[0]) == 0
    assert timestep(schedule, by_timestep[640]) == pytest.approx(640)
    assert timestep(schedule, np.sqrt(by_timestep[640] * by_timestep[641])) == pytest.approx(640.5)


@pytest.mark.parametrize("kind", ["vp_linear", "vp_cosine"])
@pytest.mark.parametrize("timesteps", [1000, 250])
def test_the_schedule_is_the_one_that_training_knows(kind: str, timesteps: int) -> None:
    schedule = NoiseSchedule(kind=kind, sigma_min=0.01, sigma_max=157, timesteps=timesteps)
    trained = preconditioning.vp_sigmas(kind, timesteps).numpy()
    np.testing.assert_allclose(sigmas(schedule, timesteps)[-2::-1], trained, rtol=1e-9)
    for sigma in (0.02, 0.5, 7.0):
        told = preconditioning.noise_level(kind, torch.tensor([sigma], dtype=torch.float64), timesteps)
        assert timestep(schedule, sigma) == pytest.approx(told.item(), rel=1e-6)


@pytest.mark.parametrize("kind", LEAST_TIMESTEPS)
def test_the_least_timesteps_are_the_fewest_whose_betas_leave_some_of_the_image(kind: str) -> None:
    least = LEAST_TIMESTEPS[kind]
    levels = preconditioning.vp_sigmas(kind, least).numpy()
    assert np.isfinite(levels).all()
    assert (np.diff(levels) > 0).all()
    np.testing.assert_array_less(BETAS[kind](least), 1)
    if kind == "vp_linear":
        assert BETAS[kind](least - 1).max() == 1


def test_training_and_serving_need_the_same_least_timesteps() -> None:
    assert preconditioning.LEAST_TIMESTEPS == LEAST_TIMESTEPS
