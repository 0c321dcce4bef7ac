"""Settings of a CycleGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["instance", "none"]


@dataclass(frozen=True, kw_only=True)
class CycleGANSettings:
    """Settings of the networks, the losses and the optimizers."""

    channels: int = 16
    """Channels of a generator at full size; they double at every halving."""
    halvings: int = 2
    """Times a generator halves the image; sides must be multiples of 2 to this power."""
    blocks: int = 3
    """Residual blocks of a generator at its least size."""
    norm: Norm = "instance"
    """Normalisation in the generators. Instance norm forgets each image's overall contrast."""
    discriminator_channels: int = 32
    """Channels of a discriminator's first layer; they double at every halving."""
    discriminator_halvings: int = 2
    """Halvings of a discriminator; 2 judge patches of 34 pixels, 1 patches of 16."""
    discriminator_norm: Norm = "none"
    """Normalisation in the discriminators."""
    cycle_weight_a: float = 10.0
    """Weight of the L1 distance between a and a → b → a (lambda in the paper)."""
    cycle_weight_b: float = 10.0
    """Weight of the L1 distance between b and b → a → b."""
    cycle_b_teaches_both: bool = True
    """Whether b → a → b teaches both generators. Where a shows less than b (a drawing less than a picture),
    b_to_a would learn to hide in a what a_to_b needs to restore b; false lets it teach a_to_b alone, as the
    back-translation of Sennrich et al. (2016) does."""
    cycle_noise: float = 0.0
    """Standard deviation of the noise on a translation before its way back, so that what the eye cannot see
    cannot carry the original (Chu et al. 2017 show that without it, it does)."""
    identity_weight: float = 2.0
    """Weight at the start of the L1 distance between b and a_to_b(b), and a and b_to_a(a)."""
    identity_until: float = 0.5
    """Part of the run over which the identity weight falls linearly to 0."""
    pool_size: int = 50
    """Past translations kept to show to each discriminator (Shrivastava et al. 2017); 0 keeps none."""
    lr: float = 1e-3
    """Peak learning rate of the generators."""
    discriminator_lr: float = 1e-3
    """Peak learning rate of the discriminators."""
    beta1: float = 0.5
    """Adam's first coefficient."""

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "discriminator_channels", "discriminator_halvings"):
            if getattr(self, name) < 1:
                raise ValueError(f"cyclegan.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("cycle_weight_a", "cycle_weight_b", "cycle_noise", "identity_weight", "identity_until"):
            if getattr(self, name) < 0:
                raise ValueError(f"cyclegan.{name} must not be negative, got {getattr(self, name)}")
        if self.halvings < 0 or self.pool_size < 0:
            raise ValueError(
                f"cyclegan.halvings and cyclegan.pool_size must be 0 or more, "
                f"got {self.halvings} and {self.pool_size}"
            )
        for name in ("norm", "discriminator_norm"):
            if getattr(self, name) not in ("instance", "none"):
                raise ValueError(f"cyclegan.{name} {getattr(self, name)!r} is not one of instance, none")
