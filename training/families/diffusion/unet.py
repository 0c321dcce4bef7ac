"""The U-Net of diffusion models, after ADM (Dhariwal and Nichol 2021) and EDM (Karras et al. 2022)."""

from __future__ import annotations

import math
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class UNet(nn.Module):
    """Residual blocks at falling and rising resolutions, joined by skips.

    The noise level and the class of each row modulate every block. Resolution falls by averaging 2×2
    and rises by repeating; with `unshuffle` the network works on blocks of pixels as channels, which
    makes it that much faster. The last layer starts at zero.
    """

    def __init__(
        self,
        *,
        image: tuple[int, int, int],
        classes: int,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        unshuffle: int,
        dropout: float,
        noise_scale: float,
    ) -> None:
        """`image` is [channels, height, width]; `classes` counts the null class, 0 is unconditional;
        `attention` names the heights of feature maps with self-attention."""
        super().__init__()
        depth, height, width = image
        divisor = unshuffle * 2 ** (len(multipliers) - 1)
        if height % divisor or width % divisor:
            raise ValueError(
                f"images of {height}x{width} do not divide by {divisor}: use a smaller unshuffle, "
                f"fewer multipliers, or another image size"
            )
        self.channels, self.unshuffle = channels, unshuffle
        self.noise_scale = noise_scale
        features = 4 * channels
        self.embed_noise = nn.Sequential(
            nn.Linear(channels, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.embed_class = nn.Embedding(classes, features) if classes else None
        self.stem = nn.Conv2d(depth * unshuffle**2, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        resolution, before = height // unshuffle, channels
        skips: list[int] = []
        for level, multiplier in enumerate(multipliers):
            resolution = resolution if level == 0 else resolution // 2
            for _ in range(blocks):
                after = channels * multiplier
                self.down.append(Block(before, after, features, dropout, resolution in attention))
                skips.append(after)
                before = after
        self.middle = nn.ModuleList(
            Block(before, before, features, dropout, attend) for attend in (resolution in attention, False)
        )
        for level, multiplier in reversed(list(enumerate(multipliers))):
            resolution = height // unshuffle // 2**level
            for _ in range(blocks):
                after = channels * multiplier
                self.up.append(Block(before + skips.pop(), after, features, dropout, resolution in attention))
                before = after
        self.blocks, self.levels = blocks, len(multipliers)
        self.norm = group_norm(before)
        self.out = zero(nn.Conv2d(before, depth * unshuffle**2, 3, padding=1))

    def forward(self, x: Tensor, noise_level: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Prediction of the shape of x [rows, c, h, w], at noise_level [rows, 1] and class_id [rows, 1]."""
        embedding = self.embed_noise(sinusoids(noise_level * self.noise_scale, self.channels))
        if self.embed_class is not None:
            if class_id is None:
                raise ValueError("this network is conditional: give class_id, the null class for none")
            embedding = embedding + self.embed_class(class_id[:, 0])
        embedding = F.silu(embedding)
        x = self.stem(F.pixel_unshuffle(x, self.unshuffle))
        skips = []
        for index, block in enumerate(self.down):
            if index and index % self.blocks == 0:
                x = F.avg_pool2d(x, 2)
            x = block(x, embedding)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for index, block in enumerate(self.up):
            if index and index % self.blocks == 0:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), self.unshuffle)


class Block(nn.Module):
    """Two convolutions whose second normalisation is scaled and shifted by the embedding; then attention."""

    def __init__(self, before: int, after: int, features: int, dropout: float, attend: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.modulate = zero(nn.Linear(features, 2 * after))
        self.norm2, self.conv2 = group_norm(after), zero(nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(after) if attend else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [rows, before, h, w] and the rows' embedding to [rows, after, h, w]."""
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = F.silu(self.norm2(hidden) * (1 + scale) + shift)
        x = self.skip(x) + self.conv2(self.dropout(hidden))
        return x if self.attention is None else x + cast(Tensor, self.attention(x))


class Attention(nn.Module):
    """Self-attention among the positions of a feature map (Vaswani et al. 2017), 32 channels a head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """What attention adds to x [rows, c, h, w]."""
        rows, channels, height, width = x.shape
        heads = self.qkv(self.norm(x)).reshape(rows, 3, self.heads, channels // self.heads, height * width)
        query, key, value = heads.transpose(3, 4).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(2, 3)
        return cast(Tensor, self.out(attended.reshape(rows, channels, height, width)))


def sinusoids(level: Tensor, features: int) -> Tensor:
    """Sinusoidal embedding of levels [rows, 1] with periods from 2π to 2π·10⁴ (Vaswani et al. 2017)."""
    half = features // 2
    exponents = torch.arange(half, device=level.device, dtype=torch.float32) / half
    angles = level * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 8 channels a group."""
    return nn.GroupNorm(channels // 8, channels)


def zero(module: Module) -> Module:
    """The module with all its parameters at zero, so that what it feeds starts out as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
