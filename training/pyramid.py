"""Convolutional networks between a vector and an image, as deep as the image is large.

The image is halved while both sides are even and longer than four pixels, so 8×8 has one halving and
256×256 six; any size has as many as it allows. Channels double with every halving, up to a maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """The sizes of an image pyramid."""

    height: int
    """Pixels of the whole image."""
    width: int
    """Pixels of the whole image."""
    channels: int
    """Feature maps at full size."""
    max_channels: int
    """Most feature maps at any size."""

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        height, width, count = self.height, self.width, 0
        while height % 2 == 0 and width % 2 == 0 and min(height, width) > 4:
            height, width, count = height // 2, width // 2, count + 1
        return count

    @property
    def smallest(self) -> tuple[int, int]:
        """Height and width after all halvings."""
        return self.height >> self.halvings, self.width >> self.halvings

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature maps by size, the full image first."""
        return tuple(min(self.channels << level, self.max_channels) for level in range(self.halvings + 1))


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016) with group normalisation or none, and, where there is a
    code, scale and shift by it after the second normalisation (Dhariwal and Nichol 2021).

    It begins as the identity, so that depth needs no normalisation to be trained (Zhang et al. 2019).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resample: Literal["", "up", "down"] = "",
        code_dim: int = 0,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = _norm(in_channels, normalised)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels, normalised)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        self.modulation = nn.Linear(code_dim, 2 * out_channels) if code_dim else None
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        h = self.conv1(self._resampled(_activation(self.norm1(x))))
        h = self.norm2(h)
        if self.modulation is not None:
            scale, shift = self.modulation(code)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = self.conv2(_activation(h))
        result: Tensor = self.skip(self._resampled(x)) + h
        return result

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x


class Synthesis(nn.Module):
    """Vectors [n, code_dim] to images [n, image_channels, height, width], unbounded."""

    def __init__(self, pyramid: Pyramid, *, code_dim: int, image_channels: int, blocks: int) -> None:
        super().__init__()
        self.smallest = pyramid.smallest
        channels = pyramid.widths[-1]
        self.first = nn.Linear(code_dim, channels * math.prod(self.smallest))
        layers = [ResidualBlock(channels, channels, code_dim=code_dim) for _ in range(blocks)]
        for width in pyramid.widths[-2::-1] if pyramid.halvings else ():
            layers.append(ResidualBlock(channels, width, resample="up", code_dim=code_dim))
            layers += [ResidualBlock(width, width, code_dim=code_dim) for _ in range(blocks - 1)]
            channels = width
        self.blocks = nn.ModuleList(layers)
        self.last = nn.Sequential(
            _norm(channels, True), nn.LeakyReLU(0.2), nn.Conv2d(channels, image_channels, 3, padding=1)
        )

    def forward(self, code: Tensor) -> Tensor:
        x = self.first(code).unflatten(1, (-1, *self.smallest))
        for block in self.blocks:
            x = block(x, code)
        images: Tensor = self.last(x)
        return images


class Analysis(nn.Module):
    """Images [n, image_channels, height, width] to vectors [n, out_dim]."""

    def __init__(
        self, pyramid: Pyramid, *, image_channels: int, out_dim: int, blocks: int, normalised: bool = True
    ) -> None:
        super().__init__()
        channels = pyramid.widths[0]
        layers: list[nn.Module] = [nn.Conv2d(image_channels, channels, 3, padding=1)]
        for width in pyramid.widths[1:]:
            layers += [ResidualBlock(channels, channels, normalised=normalised) for _ in range(blocks - 1)]
            layers.append(ResidualBlock(channels, width, resample="down", normalised=normalised))
            channels = width
        layers += [ResidualBlock(channels, channels, normalised=normalised) for _ in range(blocks)]
        area = math.prod(pyramid.smallest)
        self.layers = nn.Sequential(
            *layers,
            _norm(channels, normalised),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(channels * area, out_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def _norm(channels: int, normalised: bool) -> nn.Module:
    return nn.GroupNorm(math.gcd(8, channels), channels) if normalised else nn.Identity()


def _activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
