"""How images are drawn from a denoiser: what it predicts, and the noise levels that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from serving.manifest.problems import ManifestError

Prediction = Literal["epsilon", "x0", "v", "edm", "flow"]
Schedule = Literal["vp_linear", "vp_cosine", "edm", "flow"]

LEAST_TIMESTEPS: dict[Schedule, int] = {"vp_linear": 21, "vp_cosine": 2}
"""Timesteps that a variance-preserving schedule needs: with 20 the last of the linear betas is 1, and nothing
is left of the image."""


@dataclass(frozen=True, kw_only=True)
class Parameterization:
    """What a denoiser predicts, and so how its output becomes the denoised image."""

    prediction: Prediction
    """`epsilon` (Ho et al. 2020), `x0`, `v` (Salimans and Ho 2022), `edm` (Karras et al. 2022) or `flow`
    (rectified flow, Liu et al. 2023)."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for `edm` preconditioning."""

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ManifestError(
                f"parameterization {self.prediction!r} is not one of {', '.join(get_args(Prediction))}"
            )


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a denoiser was trained on, as sigma = noise / signal amplitude."""

    kind: Schedule
    """`vp_linear` and `vp_cosine` are variance preserving with discrete timesteps; `edm` has noise levels
    alone; `flow` mixes image and noise linearly, sigma = t / (1 - t)."""
    sigma_min: float
    """Least noise level."""
    sigma_max: float
    """Greatest noise level, from which sampling starts."""
    rho: float = 7.0
    """Exponent of the Karras spacing, for `edm`."""
    timesteps: int = 1000
    """Number of training timesteps, for the variance-preserving kinds."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Schedule):
            raise ManifestError(f"noise schedule {self.kind!r} is not one of {', '.join(get_args(Schedule))}")
        least = LEAST_TIMESTEPS.get(self.kind, 0)
        if self.timesteps < least:
            raise ManifestError(
                f"noise schedule {self.kind!r} needs at least {least} timesteps, got {self.timesteps}: train "
                f"and export it again with more, 1000 as a rule"
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ManifestError(
                f"noise schedule needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw images from a denoiser."""

    parameterization: Parameterization
    """How the prediction is read."""
    schedule: NoiseSchedule
    """The noise levels it knows."""
    sampler: str
    """Default sampler, by its name in `serving.samplers`."""
    steps: int
    """Default number of steps."""
    guidance_scale: float = 1.0
    """Default scale of classifier-free guidance; 1 is none."""
    max_steps: int = 1000
    """Most steps that a request may ask for."""
    clip_denoised: bool = False
    """Whether the denoised image is clipped to the value range at each step."""
    guidance_interval: tuple[float, float] | None = None
    """Noise levels above the first and up to the second alone are guided (Kynkäänniemi et al. 2024)."""
    distilled: bool = False
    """Whether the denoised image is the end of the flow rather than the mean of all ends, so that few-step
    samplers, which jump to it, draw the data."""

    def __post_init__(self) -> None:
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high:
                raise ManifestError(f"guidance_interval needs 0 <= low < high in sigma, got {low} and {high}")
            object.__setattr__(self, "guidance_interval", (low, high))
