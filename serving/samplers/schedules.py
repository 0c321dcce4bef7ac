"""Noise levels to step through: `steps` of them, falling, and 0 at the end.

`steps` is the number of levels at which the image is denoised, so a first-order sampler makes `steps` calls
and Heun, which also looks at where a step ends unless that is 0, makes 2·`steps` - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from serving.manifest import NoiseSchedule, Schedule


def sigmas(schedule: NoiseSchedule, steps: int, spacing: str | None = None) -> list[float]:
    """`steps` + 1 levels from the greatest down to 0, by the schedule's own spacing or one of `SPACINGS`."""
    space = DEFAULT_SPACINGS[schedule.kind] if spacing is None else SPACINGS[spacing]
    return [*space(schedule, steps).tolist(), 0.0]


def karras(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Karras et al. (2022), eq. 5: even in sigma^(1/rho)."""
    root = 1 / schedule.rho
    levels = np.linspace(schedule.sigma_max**root, schedule.sigma_min**root, steps)
    return np.asarray(levels**schedule.rho)


def exponential(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Even in ln(sigma), and so in the logarithm of the signal-to-noise ratio (Lu et al. 2022)."""
    return np.geomspace(schedule.sigma_max, schedule.sigma_min, steps)


def uniform_time(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Even in the time t = sigma / (1 + sigma) of a flow, from sigma_max on; the last step ends at t = 0."""
    start = schedule.sigma_max / (1 + schedule.sigma_max)
    t = start * np.arange(steps, 0, -1) / steps
    return np.asarray(t / (1 - t))


def uniform_timesteps(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Even in the training timesteps of a variance-preserving schedule, the last timestep first.

    The trailing spacing of Lin et al. (2024): with as many steps as timesteps, each is visited once, and with
    more steps levels in between.
    """
    last = max(schedule.timesteps / steps - 1, 0)
    return _levels(schedule, np.linspace(schedule.timesteps - 1, last, steps))


def uniform(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Even in time: the timesteps of a variance-preserving schedule, the t of a flow for the other kinds."""
    return (uniform_timesteps if schedule.kind in BETAS else uniform_time)(schedule, steps)


def linear(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """As the timesteps of linear betas (Ho et al. 2020) lie, between the schedule's own ends."""
    return _borrowed("vp_linear", schedule, steps)


def cosine(schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """As the timesteps of cosine betas (Nichol and Dhariwal 2021) lie, between the schedule's own ends."""
    return _borrowed("vp_cosine", schedule, steps)


SPACINGS: dict[str, Callable[[NoiseSchedule, int], NDArray[np.float64]]] = {
    "cosine": cosine,
    "exponential": exponential,
    "karras": karras,
    "linear": linear,
    "logsnr": exponential,
    "uniform": uniform,
}
"""Spacings that a request can ask for; in ln(sigma), `exponential` and `logsnr` are one."""

DEFAULT_SPACINGS: dict[Schedule, Callable[[NoiseSchedule, int], NDArray[np.float64]]] = {
    "edm": karras,
    "flow": uniform_time,
    "vp_linear": uniform_timesteps,
    "vp_cosine": uniform_timesteps,
}
"""The spacing that comes with each kind of schedule."""


def timestep(schedule: NoiseSchedule, sigma: float) -> float:
    """The training timestep of a noise level, fractional between two discrete ones, linear in ln(sigma)."""
    return float(np.interp(np.log(sigma), _log_sigmas(schedule), np.arange(schedule.timesteps)))


def linear_betas(timesteps: int) -> NDArray[np.float64]:
    """Ho et al. (2020): from 1e-4 to 0.02 over 1,000 timesteps, stretched to other numbers."""
    return np.linspace(1e-4, 0.02, timesteps) * (1000 / timesteps)


def cosine_betas(timesteps: int) -> NDArray[np.float64]:
    """Nichol and Dhariwal (2021), eq. 17, clipped at 0.999."""
    time = np.arange(timesteps + 1) / timesteps
    alpha_bar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999))


BETAS: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "vp_linear": linear_betas,
    "vp_cosine": cosine_betas,
}
"""Variance-preserving schedules: number of timesteps to betas."""


def _levels(schedule: NoiseSchedule, timesteps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise levels of timesteps, fractional ones too."""
    known = _log_sigmas(schedule)
    return np.asarray(np.exp(np.interp(timesteps, np.arange(len(known)), known)))


def _borrowed(kind: Schedule, schedule: NoiseSchedule, steps: int) -> NDArray[np.float64]:
    """Levels even in the timesteps of another schedule, as far as the two overlap."""
    other = NoiseSchedule(kind=kind, sigma_min=schedule.sigma_min, sigma_max=schedule.sigma_max)
    first, last = timestep(other, schedule.sigma_max), timestep(other, schedule.sigma_min)
    return _levels(other, np.linspace(first, last, steps))


@cache
def _log_sigmas(schedule: NoiseSchedule) -> NDArray[np.float64]:
    """ln(sigma) of each discrete timestep, rising."""
    alpha_bar = np.cumprod(1 - BETAS[schedule.kind](schedule.timesteps))
    return np.asarray(0.5 * np.log((1 - alpha_bar) / alpha_bar))
