"""The networks of a CycleGAN: ResNet generators, PatchGAN discriminators, pools of past translations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.families.cyclegan.settings import CycleGANSettings, Norm


class Residual(nn.Module):
    """Two convolutions beside the identity (He et al. 2016), [n, c, h, w] → the same."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, channels, 3, norm), nn.ReLU(), *_convolution(channels, channels, 3, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [n, c, h, w]."""
        out: Tensor = x + self.layers(x)
        return out


class Generator(nn.Module):
    """Translates images [n, c, h, w] in [-1, 1], h and w multiples of 2 ** halvings, by a ResNet.

    The image comes in once more before the last two convolutions: cycle consistency alone lets a generator
    permute the colours, since its counterpart can undo it, and at that point keeping them is easiest.
    """

    def __init__(self, config: CycleGANSettings, image_channels: int) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [*_convolution(image_channels, width, 7, config.norm), nn.ReLU()]
        for _ in range(config.halvings):
            layers += [*_convolution(width, 2 * width, 3, config.norm, stride=2), nn.ReLU()]
            width *= 2
        layers += [Residual(width, config.norm) for _ in range(config.blocks)]
        for _ in range(config.halvings):
            # A kernel that is a multiple of the stride covers every pixel alike and draws no checkerboard.
            up = nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1)
            layers += [up, *_norm(width // 2, config.norm), nn.ReLU()]
            width //= 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            *_convolution(width + image_channels, width, 3, "none"),
            nn.ReLU(),
            *_convolution(width, image_channels, 7, "none"),
        )

    def forward(self, image: Tensor) -> Tensor:
        """The translation, [n, c, h, w] in [-1, 1]."""
        out: Tensor = self.head(torch.cat([self.body(image), image], dim=1))
        return out.tanh()


class PatchDiscriminator(nn.Sequential):
    """PatchGAN (Isola et al. 2017): images [n, c, h, w] → a verdict on each patch [n, 1, h', w']."""

    def __init__(self, config: CycleGANSettings, image_channels: int) -> None:
        width = config.discriminator_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for halving in range(1, config.discriminator_halvings + 1):
            stride = 2 if halving < config.discriminator_halvings else 1
            layers += [
                nn.Conv2d(width, 2 * width, 4, stride, 1),
                *_norm(2 * width, config.discriminator_norm),
                nn.LeakyReLU(0.2),
            ]
            width *= 2
        super().__init__(*layers, nn.Conv2d(width, 1, 4, 1, 1))


class ImagePool(nn.Module):
    """Past translations, half of which a discriminator sees in place of new ones (Shrivastava et al. 2017).

    Its images are buffers, so that a checkpoint holds them and a resumed run goes on as if never stopped.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Keeps `images` [n, c, h, w] and returns as many: while there is room the images themselves, then
        each with probability 1/2 exchanged for one kept."""
        size, shown = len(self.images), images.detach().clone()
        if size == 0:
            return shown
        draws = torch.rand(2, len(images), generator=generator, device=generator.device).tolist()
        filled = int(self.filled)
        for row, (chance, place) in enumerate(zip(*draws, strict=True)):
            if filled < size:
                self.images[filled] = shown[row]
                filled += 1
            elif chance < 0.5:
                slot = int(place * size)
                kept = self.images[slot].clone()
                self.images[slot] = shown[row]
                shown[row] = kept
        self.filled.fill_(filled)
        return shown


def _convolution(inputs: int, outputs: int, kernel: int, norm: Norm, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")
    return [layer, *_norm(outputs, norm)]


def _norm(channels: int, norm: Norm) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels, affine=True)] if norm == "instance" else []
