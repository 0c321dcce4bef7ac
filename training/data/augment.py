"""Augmentation that does not leak into what a model generates.

There are two ways, and each transformation belongs to the ones that are safe for it:

- `augmented` changes the training images themselves, so a model learns to make such pictures: only what
  might as well have been in the data will do (AUGMENTATIONS).
- `differentiable_augment` changes whatever a discriminator sees, real and generated alike, and lets
  gradients through to the generator (Zhao et al. 2020, arXiv:2006.10738), which never has to imitate it.
  Used on a share of the images below about .8, even what could otherwise not be told from the data stays
  out of the generated ones (Karras et al. 2020, arXiv:2006.06676).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.data import Batch

Transform = Callable[[Tensor, torch.Generator], Tensor]


def uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """A number for each image, [n, 1, 1, 1], drawn where the generator lives."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(images.device, images.dtype)


def whole(images: Tensor, generator: torch.Generator, low: int, high: int) -> Tensor:
    """An integer from low to high for each image, both included, [n, 1]."""
    drawn = torch.randint(low, high + 1, (len(images), 1), generator=generator, device=generator.device)
    return drawn.to(images.device)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors half of the images left to right."""
    return torch.where(uniform(images, generator, 0, 1) < 0.5, images.flip(3), images)


def shift_by(images: Tensor, generator: torch.Generator, most: int) -> Tensor:
    """Moves each image by whole pixels, at most `most` along each axis; its edge is continued."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + whole(images, generator, -most, most)
    columns = torch.arange(width, device=images.device) + whole(images, generator, -most, most)
    rows, columns = rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def small_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each image by up to a sixteenth of its width, at least by one pixel."""
    return shift_by(images, generator, max(1, images.shape[3] // 16))


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each image by up to an eighth of its width, at least by one pixel."""
    return shift_by(images, generator, max(1, images.shape[3] // 8))


def colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Changes brightness by up to .5, saturation from none to double, contrast by up to half of it."""
    images = images + uniform(images, generator, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(images, generator, 0, 2)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * uniform(images, generator, 0.5, 1.5)


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Greys a rectangle of half of the height and width, somewhere, partly outside as it may be."""
    height, width = images.shape[2:]
    inside = []
    for size in (height, width):
        start = whole(images, generator, -(size // 4), size - size // 4)
        place = torch.arange(size, device=images.device) - start
        inside.append((place >= 0) & (place < size // 2))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


AUGMENTATIONS: dict[str, Transform] = {"flip": flip, "shift": small_shift}
"""What may be done to training images, where a mirrored or moved one might as well have been among them."""

DIFFERENTIABLE: dict[str, Transform] = {"flip": flip, "shift": shift, "colour": colour, "cutout": cutout}
"""What may be done to all that a discriminator sees."""


def augmented(batch: Batch, names: Sequence[str], rng: np.random.Generator) -> Batch:
    """The batch after some AUGMENTATIONS, in this order; images and targets are changed alike."""
    if not names:
        return batch
    seed = int(rng.integers(2**63))

    def change(images: Tensor) -> Tensor:
        generator = torch.Generator(images.device).manual_seed(seed)
        for name in names:
            images = AUGMENTATIONS[name](images, generator)
        return images.contiguous()

    targets = None if batch.targets is None else change(batch.targets)
    return replace(batch, images=change(batch.images), targets=targets)


def differentiable_augment(
    images: Tensor, policy: Sequence[str], generator: torch.Generator, probability: float = 1.0
) -> Tensor:
    """The images after each transformation of `policy` (names in DIFFERENTIABLE), each on a share of them."""
    for name in policy:
        changed = DIFFERENTIABLE[name](images, generator)
        if probability < 1:
            changed = torch.where(uniform(images, generator, 0, 1) < probability, changed, images)
        images = changed
    return images
