"""From a graph's prediction to the denoised image: parameterisations and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.calls import Array, ask
from serving.manifest import Manifest, NoiseSchedule, Prediction
from serving.samplers import Denoise, Denoised
from serving.samplers.schedules import timestep


class Scaling(NamedTuple):
    """The graph is fed `c_in`·x, and the denoised image is `c_skip`·x + `c_out`·prediction."""

    c_in: float
    c_skip: float
    c_out: float


def edm(sigma: float, sigma_data: float) -> Scaling:
    """Karras et al. (2022), table 1."""
    total = sigma**2 + sigma_data**2
    return Scaling(1 / sqrt(total), sigma_data**2 / total, sigma * sigma_data / sqrt(total))


def flow(sigma: float, sigma_data: float) -> Scaling:
    """Rectified flow (Liu et al. 2023): x_t = (1 - t)·x0 + t·n with t = sigma / (1 + sigma), F = n - x0."""
    t = sigma / (1 + sigma)
    return Scaling(1 - t, 1 - t, -t)


def epsilon(sigma: float, sigma_data: float) -> Scaling:
    """Ho et al. (2020): the noise is predicted."""
    return Scaling(1 / sqrt(1 + sigma**2), 1.0, -sigma)


def x0(sigma: float, sigma_data: float) -> Scaling:
    """The denoised image itself is predicted."""
    return Scaling(1 / sqrt(1 + sigma**2), 0.0, 1.0)


def v(sigma: float, sigma_data: float) -> Scaling:
    """Salimans and Ho (2022): alpha·n - (1 - alpha²)^½·x0 is predicted, alpha² = 1 / (1 + sigma²)."""
    total = 1 + sigma**2
    return Scaling(1 / sqrt(total), 1 / total, -sigma / sqrt(total))


SCALINGS: dict[Prediction, Callable[[float, float], Scaling]] = {
    "edm": edm,
    "flow": flow,
    "epsilon": epsilon,
    "x0": x0,
    "v": v,
}
"""Parameterisations by name: (sigma, sigma_data) to coefficients."""


def noise_level(schedule: NoiseSchedule, sigma: float) -> float:
    """`c_noise`: how a graph trained on this schedule is told of sigma."""
    if schedule.kind == "edm":
        return log(sigma) / 4
    if schedule.kind == "flow":
        return sigma / (1 + sigma)
    return timestep(schedule, sigma)


def start_scale(manifest: Manifest, sigma: float) -> float:
    """Standard deviation of x at the greatest noise level, by which standard normal noise is multiplied.

    EDM starts from the noise alone; the others from what the graph takes for pure noise, c_in·x = n.
    """
    assert manifest.sampling is not None
    parameterization = manifest.sampling.parameterization
    if parameterization.prediction == "edm":
        return sigma
    return 1 / SCALINGS[parameterization.prediction](sigma, parameterization.sigma_data).c_in


def denoiser(manifest: Manifest, class_id: NDArray[np.int64] | None, guidance_scale: float) -> Denoise:
    """The denoiser of a graph under its conditions.

    `class_id` is [rows], or None for a graph that takes none. With a `guidance_scale` other than 1 each row
    is also called without its class (Ho and Salimans 2022), in the same call; that row is left out at 1, and
    at noise levels outside the manifest's guidance interval (Kynkäänniemi et al. 2024, eq. 5).
    """
    sampling = manifest.sampling
    assert sampling is not None, "a denoiser's manifest says how it is sampled"
    scaling = SCALINGS[sampling.parameterization.prediction]
    sigma_data = sampling.parameterization.sigma_data
    above, up_to = sampling.guidance_interval or (0, inf)
    low, high = manifest.value_range
    conditional = both = None
    if class_id is not None:
        null = np.full_like(class_id, len(manifest.class_labels))
        conditional = class_id[:, None]
        both = np.concatenate([class_id, null])[:, None]

    def denoise(x: Array, sigma: float) -> Denoised:
        c_in, c_skip, c_out = scaling(sigma, sigma_data)
        guided = class_id is not None and guidance_scale != 1 and above < sigma <= up_to
        rows = len(x)
        fed = np.empty((2 * rows if guided else rows, *x.shape[1:]), np.float32)
        np.multiply(x, c_in, out=fed[:rows])
        if guided:
            fed[rows:] = fed[:rows]
        level = np.empty((len(fed), 1), np.float32)
        level.fill(noise_level(sampling.schedule, sigma))
        inputs: dict[str, NDArray[np.generic]] = {"x": fed, "noise_level": level}
        classes = both if guided else conditional
        if classes is not None:
            inputs["class_id"] = classes
        prediction = yield from ask(manifest.graph, inputs, "prediction")
        if guided:
            with_class, without = prediction[:rows], prediction[rows:]
            guidance = np.subtract(with_class, without)
            guidance *= guidance_scale
            guidance += without
            prediction = guidance
        denoised = np.multiply(prediction, c_out)
        denoised += np.multiply(x, c_skip)
        if sampling.clip_denoised:
            np.minimum(np.maximum(denoised, low, out=denoised), high, out=denoised)
        return denoised

    return denoise
