"""CIFAR-10 in its binary version: records of a label and 3×32×32 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import DataError, DataSpec, Splits
from training.data.arrays import ArrayData, digest_of
from training.data.open import existing_folder

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32


def open_cifar10(path: str | None) -> Splits:
    """All `data_batch_*.bin` to train on and `test_batch.bin` held out."""
    folder = existing_folder("cifar10", path)
    train_files, held_file = sorted(folder.glob("data_batch_*.bin")), folder / "test_batch.bin"
    if not train_files or not held_file.is_file():
        missing = "test_batch.bin" if train_files else "data_batch_1.bin"
        raise DataError(
            f"{folder} lacks {missing}: give the folder of CIFAR-10's binary version, cifar-10-batches-bin"
        )
    images, labels = _read(train_files)
    held_images, held_labels = _read([held_file])
    spec = DataSpec(
        name=f"cifar10:{path}",
        channels=3,
        height=32,
        width=32,
        class_labels=LABELS,
        digest=digest_of(images, labels),
        count=len(images),
        options={},
        source="CIFAR-10 (A. Krizhevsky, 2009).",
    )
    return Splits(
        train=ArrayData(spec=spec, images=images, labels=labels),
        held_out=ArrayData(spec=spec, images=held_images, labels=held_labels),
    )


def _read(paths: Sequence[Path]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [count, 3, 32, 32] and labels of all the files."""
    parts = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if len(content) == 0 or len(content) % RECORD:
            raise DataError(
                f"{path} is {len(content)} bytes long, no multiple of {RECORD}: it is cut short, or not of "
                f"CIFAR-10's binary version; get it again"
            )
        records = content.reshape(-1, RECORD)
        if records[:, 0].max() >= len(LABELS):
            raise DataError(
                f"{path} holds the label {records[:, 0].max()}, and CIFAR-10 has ten classes: it is another "
                f"file, or damaged; get it again"
            )
        parts.append(records)
    joined = np.concatenate(parts)
    return joined[:, 1:].reshape(-1, *SHAPE), joined[:, 0].astype(np.int64)
