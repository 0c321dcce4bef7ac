"""Settings of the diffusion family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from training.preconditioning import BETAS, LEAST_TIMESTEPS, vp_sigmas

Prediction = Literal["epsilon", "x0", "v", "edm", "flow"]
Sampler = Literal[
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "euler_ancestral",
    "heun",
    "heun_churn",
    "lms",
    "unipc",
    "unipc_3",
]


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """A diffusion model: its network, what it predicts, and how it is sampled by default."""

    channels: int = 64
    """Channels of the first resolution, a multiple of 8."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each resolution as multiples of `channels`; each resolution is half of the one before."""
    blocks: int = 2
    """Residual blocks at each resolution, down and up."""
    attention: tuple[int, ...] = (4,)
    """Heights of the feature maps that have self-attention."""
    unshuffle: int = 1
    """Side of the blocks of pixels that the network takes as channels; 2 quarters the cost."""
    dropout: float = 0.0
    """Dropout in residual blocks."""
    label_dropout: float = 0.1
    """Share of rows trained without their class, for classifier-free guidance (Ho and Salimans 2022)."""

    prediction: Prediction = "flow"
    """What the network predicts."""
    vp_schedule: str = "vp_cosine"
    """Noise schedule of epsilon, x0 and v: vp_linear or vp_cosine."""
    timesteps: int = 1000
    """Training timesteps of that schedule."""
    noise_mean: float | None = None
    """Mean of ln(sigma) in training, for edm (default -1.2) and flow (0: logit-normal t)."""
    noise_std: float | None = None
    """Standard deviation of ln(sigma) in training, for edm (default 1.2) and flow (1)."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for edm."""
    sigma_min: float | None = None
    """Least noise level of sampling, for edm (default 0.002) and flow (0.001)."""
    sigma_max: float | None = None
    """Greatest noise level, where sampling starts, for edm (default 80) and flow (999: t = 0.999)."""
    rho: float = 7.0
    """Exponent of the spacing of noise levels, for edm."""
    min_snr_gamma: float | None = None
    """Weight the loss by min(SNR, gamma) (Hang et al. 2023), for epsilon, x0 and v; 5 is usual."""

    sampler: Sampler = "dpmpp_2m"
    """Default sampler of the exported model."""
    sample_steps: int = 18
    """Default number of sampling steps."""
    guidance_scale: float = 1.0
    """Default scale of classifier-free guidance; 1 is none."""
    guidance_interval: tuple[float, float] | None = None
    """Noise levels above the first and up to the second alone are guided (Kynkäänniemi et al. 2024)."""
    clip_denoised: bool = False
    """Whether the denoised image is clipped to [-1, 1] at each step; steadies epsilon at much noise."""

    lr: float = 1e-3
    """Peak learning rate of Adam."""
    beta2: float = 0.99
    """Decay of Adam's second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip_norm: float | None = 1.0
    """Gradient norm above which gradients are scaled down."""

    def __post_init__(self) -> None:
        for name in ("multipliers", "attention"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.channels % 8 or self.channels <= 0:
            raise ValueError(f"channels must be a positive multiple of 8, got {self.channels}")
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1 or self.unshuffle < 1:
            raise ValueError(
                f"multipliers {list(self.multipliers)}, blocks {self.blocks} and unshuffle {self.unshuffle} "
                f"must be positive"
            )
        for name, choices in (
            ("prediction", get_args(Prediction)),
            ("sampler", get_args(Sampler)),
            ("vp_schedule", tuple(BETAS)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(choices)}")
        least = LEAST_TIMESTEPS.get(self.schedule, 0)
        if self.timesteps < least:
            raise ValueError(
                f"timesteps must be at least {least} for {self.schedule}, got {self.timesteps}: set more, "
                f"1000 as a rule"
            )
        for name in ("label_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))
            low, high = self.guidance_interval
            if not 0 <= low < high:
                raise ValueError(f"guidance_interval needs 0 <= low < high in sigma, got {low} and {high}")
        if self.min_snr_gamma is not None and self.schedule in ("edm", "flow"):
            raise ValueError(f"min_snr_gamma weights epsilon, x0 and v; leave it out with {self.prediction}")
        if self.guidance_scale != 1 and not self.label_dropout:
            raise ValueError(
                f"guidance_scale {self.guidance_scale} needs a network that was trained without classes too: "
                f"set label_dropout, for example to 0.1"
            )

    @property
    def schedule(self) -> str:
        """Name of the noise schedule: edm, flow, vp_linear or vp_cosine."""
        return self.prediction if self.prediction in ("edm", "flow") else self.vp_schedule

    @property
    def log_sigma(self) -> tuple[float, float]:
        """Mean and standard deviation of ln(sigma) in training, for edm and flow."""
        mean, std = (-1.2, 1.2) if self.prediction == "edm" else (0.0, 1.0)
        return (
            mean if self.noise_mean is None else self.noise_mean,
            std if self.noise_std is None else self.noise_std,
        )

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and greatest noise level."""
        if self.schedule in BETAS:
            sigmas = vp_sigmas(self.schedule, self.timesteps)
            return float(sigmas[0]), float(sigmas[-1])
        low, high = (0.002, 80.0) if self.prediction == "edm" else (0.001, 999.0)
        return (
            low if self.sigma_min is None else self.sigma_min,
            high if self.sigma_max is None else self.sigma_max,
        )
