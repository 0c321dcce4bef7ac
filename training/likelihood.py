"""Gaussian likelihoods of images, as densities and as probabilities of their discrete levels, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, elementwise."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def gaussian_log_density(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; mean, sigma²) in nats, elementwise."""
    return -0.5 * ((x - mean) / log_sigma.exp()).square() - log_sigma - 0.5 * math.log(2 * math.pi)


def level_log_probability(x: Tensor, mean: Tensor, log_sigma: Tensor, levels: int) -> Tensor:
    """log P(level of x) in nats, elementwise, for `levels` equal steps from -1 to 1.

    A level's probability is the Gaussian's mass over its interval, the outermost reaching to infinity
    (Salimans et al. 2017 for the logistic): the bound is one on a true probability, and uniform
    dequantisation could only loosen it.
    """
    half = 1 / (levels - 1)
    upper = torch.where(x > 1 - half, torch.inf, (x + half - mean) / log_sigma.exp())
    lower = torch.where(x < -1 + half, -torch.inf, (x - half - mean) / log_sigma.exp())
    # In the right tail both distribution functions round to one: look at it as the left.
    mirrored = lower + upper > 0
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    result: Tensor = log_upper + torch.log(-torch.expm1(log_lower - log_upper))
    return result
