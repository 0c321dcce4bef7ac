"""The five parameterisations against their definitions in the papers."""

from __future__ import annotations

import math

import pytest
import torch

from training.preconditioning import NOISE_LEVELS, SCALINGS, cosine_betas, noise_level, vp_sigmas, vp_timestep

SIGMA = torch.tensor([0.01, 0.3, 1.0, 7.0, 80.0], dtype=torch.float64)
IMAGE, NOISE = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-1.3, dtype=torch.float64)


def perfect_output(prediction: str) -> torch.Tensor:
    """What a perfect network says of IMAGE and NOISE, in the words of each paper."""
    alpha = 1 / (1 + SIGMA**2).sqrt()
    return {
        "epsilon": NOISE.expand(5),
        "x0": IMAGE.expand(5),
        "v": alpha * NOISE - (1 - alpha**2).sqrt() * IMAGE,
        "flow": (NOISE - IMAGE).expand(5),
        "edm": (IMAGE - 0.25 / (SIGMA**2 + 0.25) * (IMAGE + SIGMA * NOISE))
        * (SIGMA**2 + 0.25).sqrt()
        / (SIGMA * 0.5),
    }[prediction]


@pytest.mark.parametrize("prediction", SCALINGS)
def test_a_perfect_network_gives_back_the_image_at_every_noise_level(prediction: str) -> None:
    scaling = SCALINGS[prediction](SIGMA, 0.5)
    denoised = scaling.c_skip * (IMAGE + SIGMA * NOISE) + scaling.c_out * perfect_output(prediction)
    torch.testing.assert_close(denoised, IMAGE.expand(5))


def test_the_flow_is_fed_the_straight_line_between_image_and_noise() -> None:
    time = noise_level("flow", SIGMA, 1000)
    fed = SCALINGS["flow"](SIGMA, 0.5).c_in * (IMAGE + SIGMA * NOISE)
    torch.testing.assert_close(fed, (1 - time) * IMAGE + time * NOISE)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v", "edm"])
def test_what_the_network_is_fed_has_unit_variance(prediction: str) -> None:
    data = 0.5 if prediction == "edm" else 1.0
    variance = SCALINGS[prediction](SIGMA, 0.5).c_in ** 2 * (data**2 + SIGMA**2)
    torch.testing.assert_close(variance, torch.ones(5, dtype=torch.float64))


def test_edm_gives_its_network_a_target_of_unit_variance() -> None:
    scaling = SCALINGS["edm"](SIGMA, 0.5)
    variance = ((1 - scaling.c_skip) ** 2 * 0.25 + scaling.c_skip**2 * SIGMA**2) / scaling.c_out**2
    torch.testing.assert_close(variance, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["vp_linear", "vp_cosine"])
def test_the_timestep_of_a_schedules_own_noise_level_is_its_index(kind: str) -> None:
    sigmas = vp_sigmas(kind, 1000)
    assert (sigmas.diff() > 0).all()
    level = noise_level(kind, sigmas, 1000)
    torch.testing.assert_close(level, torch.arange(1000, dtype=torch.float64))


def test_between_two_timesteps_the_level_is_linear_in_the_logarithm() -> None:
    sigmas = vp_sigmas("vp_linear", 1000)
    between = (sigmas[41] * sigmas[42]).sqrt()
    assert float(vp_timestep(between, sigmas)) == pytest.approx(41.5)


def test_the_linear_schedule_has_the_noise_levels_of_ho_et_al() -> None:
    sigmas = vp_sigmas("vp_linear", 1000)
    assert float(sigmas[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    assert float(sigmas[-1]) == pytest.approx(157.4, abs=0.1)


def test_the_cosine_schedules_betas_are_clipped() -> None:
    betas = cosine_betas(1000)
    assert float(betas.max()) == 0.999
    assert float(betas[0]) == pytest.approx(4.128e-5, rel=1e-3)


@pytest.mark.parametrize("kind", NOISE_LEVELS)
def test_the_noise_level_rises_with_sigma(kind: str) -> None:
    assert (noise_level(kind, SIGMA, 1000).diff() > 0).all()
