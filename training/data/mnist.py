"""MNIST, and whatever else comes in its four idx files: Fashion-MNIST, Kuzushiji-MNIST, one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import DataError, DataSpec, Splits
from training.data.arrays import ArrayData, digest_of
from training.data.idx import read_idx
from training.data.open import existing_folder, in_range


def open_mnist(path: str | None, *, pad: int = 0, labels: str = "") -> Splits:
    """The files `train-*` to train on and `t10k-*` held out, with `pad` pixels of black added on each side.

    `labels` names the classes in order, separated by commas; without it they are named by their numbers.
    """
    folder = existing_folder("mnist", path)
    in_range("mnist", "pad", pad, 0, 64)
    train_images, train_labels = _read(folder, "train", pad)
    held_images, held_labels = _read(folder, "t10k", pad)
    if train_images.shape[1:] != held_images.shape[1:]:
        raise DataError(
            f"the images of {folder} are {train_images.shape[2:]} in train and {held_images.shape[2:]} in "
            f"t10k: they are not of one data set"
        )
    classes = 1 + int(max(train_labels.max(), held_labels.max()))
    names = tuple(name.strip() for name in labels.split(",")) if labels else tuple(map(str, range(classes)))
    if len(names) < classes:
        raise DataError(
            f"option labels={labels!r} of mnist names {len(names)} classes, and there are {classes}"
        )
    spec = DataSpec(
        name=f"mnist:{path}",
        channels=1,
        height=train_images.shape[2],
        width=train_images.shape[3],
        class_labels=names,
        digest=digest_of(train_images, train_labels),
        count=len(train_images),
        options={"pad": pad, "labels": labels},
        source=f"idx files in the folder {folder.name}.",
    )
    return Splits(
        train=ArrayData(spec=spec, images=train_images, labels=train_labels),
        held_out=ArrayData(spec=spec, images=held_images, labels=held_labels),
    )


def _read(folder: Path, part: str, pad: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [count, 1, height, width] and labels of one part."""
    images_path, labels_path = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images and {labels_path.name} {len(labels)} labels: "
            f"they are not of one data set"
        )
    if not len(images):
        raise DataError(f"{images_path} holds no images: get it again, or give another folder")
    padded = np.pad(images[:, np.newaxis], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return padded, labels.astype(np.int64)


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    """The file, under the names and the packing in which it is found in the wild."""
    names = [f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte"]
    for name in names:
        for packed in (name, f"{name}.gz"):
            if (folder / packed).is_file():
                return folder / packed
    raise DataError(f"{folder} lacks {names[0]} (or {names[0]}.gz): put the four idx files there")
