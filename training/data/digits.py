"""The real handwritten digits of scikit-learn: 1,797 grey images of 8×8 pixels."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from training.data import DataSpec, Splits
from training.data.arrays import ArrayData, digest_of
from training.data.open import no_path

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INK_LEVELS = 17
"""Each pixel counts the inked ones of a 4×4 block of the scan, from 0 to 16."""
TRAIN_COUNT = 1200


def open_digits(path: str | None) -> Splits:
    """1,200 images to train on and 597 held out, stratified by class, always the same ones."""
    no_path("digits", path)
    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, np.newaxis]
    labels = bunch.target.astype(np.int64)
    train, held_out = train_test_split(
        np.arange(len(images)), train_size=TRAIN_COUNT, stratify=labels, random_state=0
    )
    spec = DataSpec(
        name="digits",
        channels=1,
        height=8,
        width=8,
        class_labels=LABELS,
        levels=INK_LEVELS,
        enlarge=4,
        digest=digest_of(images[train], labels[train]),
        count=len(train),
        options={},
        source=(
            "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), UCI Machine Learning "
            "Repository, CC BY 4.0, as scikit-learn ships its test part."
        ),
    )
    return Splits(
        train=ArrayData(spec=spec, images=images[train], labels=labels[train]),
        held_out=ArrayData(spec=spec, images=images[held_out], labels=labels[held_out]),
    )
