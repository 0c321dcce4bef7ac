import math

import pytest
import torch

from training.likelihood import gaussian_log_density, kl_divergence, level_log_probability


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0])
def test_the_probabilities_of_all_levels_add_up_to_one(levels: int, sigma: float):
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
    mean = torch.tensor([-1.3, -0.4, 0.0, 0.77, 1.0], dtype=torch.float64)
    log_probability = level_log_probability(x, mean, torch.tensor(math.log(sigma)).double(), levels)
    torch.testing.assert_close(log_probability.exp().sum(0), torch.ones(5, dtype=torch.float64))


def test_a_level_far_from_the_mean_is_improbable_but_finite_on_either_side():
    x, log_sigma = torch.tensor([0.5, -0.5]), torch.tensor(math.log(0.02))
    low, high = level_log_probability(x, torch.tensor([-1.0, 1.0]), log_sigma, 256)
    assert math.isfinite(low)
    assert low == pytest.approx(high.item())
    assert low < -2000


def test_between_narrow_levels_probability_is_density_times_width():
    x, mean, log_sigma = torch.tensor([51 / 127.5 - 1]), torch.tensor([0.1]), torch.tensor(0.0)
    expected = gaussian_log_density(x, mean, log_sigma) + math.log(2 / 255)
    torch.testing.assert_close(level_log_probability(x, mean, log_sigma, 256), expected)


def test_density_and_divergence_are_those_of_torch_distributions():
    mean, log_variance, x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(7), torch.ones(7))
    torch.testing.assert_close(
        kl_divergence(mean, log_variance), torch.distributions.kl_divergence(posterior, prior)
    )
    torch.testing.assert_close(gaussian_log_density(x, mean, 0.5 * log_variance), posterior.log_prob(x))
