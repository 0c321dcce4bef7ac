"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run of the benchmark does."""

    repository: Path
    """Model repository that every server serves."""
    peers: tuple[str, ...]
    """Peers by name, in the order of the tables."""
    scenarios: tuple[str, ...]
    """What is measured."""
    runs: int
    """Alternating runs, of which the median counts."""
    seconds: float
    """Length of the window of a run."""
    warm_up: float
    """Seconds of load before the window."""
    cores: int
    """Cores that every server may use."""
    clients: int = 16
    """Clients of a saturated diffusion model."""
    diffusion: tuple[str, ...] = ("shapes_unet", "digits_unet")
    """Diffusion models; the first is the one that the targets are about."""
    one_pass: tuple[str, ...] = ("digits_gan", "digits_vae")
    """Models of one pass; the first that is there is measured."""
    triton_backends: Path | None = None
    """Folder of Triton's backends for the gateway over Triton, in place of those of the installation."""
