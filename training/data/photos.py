"""Patches of scikit-learn's two photographs, a temple and a flower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from training.data import Batch, DataSpec, Splits
from training.data.arrays import ArrayData, digest_of, to_unit_range
from training.data.crop import crops_at
from training.data.open import in_range, no_path

LABELS = ("temple", "flower")
TRAIN_SHARE = 0.66
"""Share of the height, from the top, that is trained on; the rest is held out."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Patches of photographs at random places, the photographs in turn."""

    spec: DataSpec
    """What a patch is."""
    photos: NDArray[np.uint8]
    """uint8 [photos, channels, height, width]."""

    def __len__(self) -> int:
        """Patches in an epoch."""
        return self.spec.count

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Patches of the photographs index modulo their number, at places drawn by `rng`; an epoch's patches
        would cover them four times."""
        photos, _, height, width = self.photos.shape
        photo = indices % photos
        top = rng.integers(height - self.spec.height + 1, size=len(indices))
        left = rng.integers(width - self.spec.width + 1, size=len(indices))
        patches = crops_at(self.photos, photo, top, left, self.spec.height)
        return Batch(images=to_unit_range(torch.from_numpy(patches)), labels=torch.from_numpy(photo))


def open_photos(path: str | None, *, size: int = 32, reduce: int = 2) -> Splits:
    """Random patches of the upper two thirds, and a fixed grid of patches of the lower third held out.

    The photographs, 640×427, are first made smaller by the factor `reduce`.
    """
    no_path("photos", path)
    in_range("photos", "reduce", reduce, 1, 8)
    photos = np.stack(
        [np.asarray(Image.fromarray(photo).reduce(reduce)) for photo in load_sample_images().images]
    ).transpose(0, 3, 1, 2)
    border = round(photos.shape[2] * TRAIN_SHARE)
    train, held_out = photos[:, :, :border], photos[:, :, border:]
    in_range("photos", "size", size, 8, min(held_out.shape[2:]))
    step = max(1, size // 2)
    photo, top, left = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(len(photos)),
            np.arange(0, held_out.shape[2] - size + 1, step),
            np.arange(0, held_out.shape[3] - size + 1, step),
            indexing="ij",
        )
    )
    spec = DataSpec(
        name="photos",
        channels=3,
        height=size,
        width=size,
        class_labels=LABELS,
        digest=digest_of(train),
        count=4 * len(photos) * (train.shape[2] // size) * (train.shape[3] // size),
        options={"size": size, "reduce": reduce},
        source="Two photographs of scikit-learn by danielbuechele and vultilion of Flickr, CC BY 2.0.",
    )
    return Splits(
        train=Patches(spec=spec, photos=train),
        held_out=ArrayData(spec=spec, images=crops_at(held_out, photo, top, left, size), labels=photo),
    )
