"""Folders of pictures: one, with a sub-folder for each class or without, or two, for translation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import DataError, DataSpec, Splits
from training.data.listing import classes_of, domain_names, list_pictures, matched
from training.data.open import existing_folder, in_range, one_of
from training.data.pairs import PairData
from training.data.pictures import PictureData, Pictures, digest_of_pictures, read_pictures
from training.data.share import held_out_of

CROPS = ("centre", "random")
BROKEN = ("error", "skip")
CROP_ROOM = 9 / 8
"""Side to which pictures are resized for random crops, in sides of the crop."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How the pictures of a folder are read."""

    kind: str
    """Name of the data set, for errors."""
    size: int
    """Height and width of the images."""
    channels: int
    """1 for grey, 3 for RGB."""
    crop: str
    """`centre`, or `random`: anywhere in a middle square an eighth wider."""
    broken: str
    """`error`, or `skip`."""
    held_out: float
    """Share of the pictures that is held out, chosen by their names."""
    memory_mb: int
    """Megabytes of pixels up to which they are held in memory."""

    def __post_init__(self) -> None:
        """Refuses what is out of range."""
        in_range(self.kind, "size", self.size, 8, 4096)
        one_of(self.kind, "channels", self.channels, (1, 3))
        one_of(self.kind, "crop", self.crop, CROPS)
        one_of(self.kind, "broken", self.broken, BROKEN)
        in_range(self.kind, "held_out", self.held_out, 0, 0.9)
        in_range(self.kind, "memory_mb", self.memory_mb, 0, 10**7)

    def chosen(self) -> dict[str, int | float | str]:
        """The options that the images depend on."""
        names = ("size", "channels", "crop", "broken", "held_out")
        return {name: getattr(self, name) for name in names}

    def read(self, folder: Path, names: list[str]) -> tuple[Pictures, NDArray[np.int64]]:
        """The whole ones of the pictures of these names, and their numbers."""
        side = round(self.size * CROP_ROOM) if self.crop == "random" else self.size
        files = [folder / name for name in names]
        return read_pictures(files, side, self.channels, self.memory_mb, self.broken == "skip")


def open_folder(
    path: str | None,
    *,
    size: int = 64,
    channels: int = 3,
    crop: str = "centre",
    classes: bool = True,
    broken: str = "error",
    held_out: float = 0.1,
    memory_mb: int = 2048,
) -> Splits:
    """All pictures in a folder and below it; its sub-folders are classes where every picture is in one."""
    folder = existing_folder("folder", path)
    options = FolderOptions(
        kind="folder",
        size=size,
        channels=channels,
        crop=crop,
        broken=broken,
        held_out=held_out,
        memory_mb=memory_mb,
    )
    names = list_pictures(folder)
    class_labels = classes_of(folder, names) if classes else ()
    pictures, whole = options.read(folder, names)
    names = [names[i] for i in whole]
    if len(names) < 2:
        raise DataError(f"{folder} holds {len(names)} whole pictures: two are the least, one to hold out")
    labels = None
    if class_labels:
        labels = np.array([class_labels.index(name.partition("/")[0]) for name in names], np.int64)
    held = held_out_of(names, held_out)
    train, rest = np.flatnonzero(~held), np.flatnonzero(held)
    spec = DataSpec(
        name=f"folder:{path}",
        channels=channels,
        height=size,
        width=size,
        class_labels=class_labels,
        digest=digest_of_pictures(pictures.take(train), labels=None if labels is None else labels[train]),
        count=len(train),
        options={**options.chosen(), "classes": classes},
        source=f"Pictures in the folder {folder.resolve().name}.",
    )

    def part(index: NDArray[np.int64], random_crop: bool) -> PictureData:
        return PictureData(
            spec=spec,
            pictures=pictures.take(index),
            labels=None if labels is None else labels[index],
            random_crop=random_crop,
        )

    return Splits(train=part(train, crop == "random"), held_out=part(rest, False))


def open_folder_pair(
    path: str | None,
    *,
    size: int = 64,
    channels: int = 3,
    crop: str = "centre",
    paired: bool = False,
    broken: str = "error",
    held_out: float = 0.1,
    memory_mb: int = 2048,
) -> Splits:
    """Two folders, `folders:A,B`; paired ones hold a picture of the same name (but for its ending) each."""
    first_path, comma, second_path = (path or "").partition(",")
    if not comma:
        raise DataError("folders needs two folders: write --data folders:PATH,PATH")
    options = FolderOptions(
        kind="folders",
        size=size,
        channels=channels,
        crop=crop,
        broken=broken,
        held_out=held_out,
        memory_mb=memory_mb,
    )
    roots = [existing_folder("folders", part) for part in (first_path, second_path)]
    names = [list_pictures(root) for root in roots]
    if paired:
        names = matched(roots, names)
    read = [options.read(root, listed) for root, listed in zip(roots, names, strict=True)]
    if paired:
        both = np.intersect1d(read[0][1], read[1][1])
        parts = [pictures.take(np.searchsorted(whole, both)) for pictures, whole in read]
        keys = [[Path(names[0][i]).with_suffix("").as_posix() for i in both]] * 2
    else:
        parts = [pictures for pictures, _ in read]
        keys = [[listed[i] for i in whole] for listed, (_, whole) in zip(names, read, strict=True)]
    for root, part in zip(roots, parts, strict=True):
        if len(part) < 2:
            raise DataError(f"{root} holds {len(part)} whole pictures: two are the least, one to hold out")
    held = [held_out_of(key, held_out) for key in keys]
    train, rest = (
        [part.take(np.flatnonzero(where)) for part, where in zip(parts, side, strict=True)]
        for side in ([~mask for mask in held], held)
    )
    spec = DataSpec(
        name=f"folders:{path}",
        channels=channels,
        height=size,
        width=size,
        domains=domain_names(roots),
        digest=digest_of_pictures(*train),
        count=max(map(len, train)),
        options={**options.chosen(), "paired": paired},
        source=f"Pictures in the folders {roots[0].resolve().name} and {roots[1].resolve().name}.",
    )

    def pair(sides: list[Pictures], random_crop: bool) -> PairData:
        first, second = (PictureData(spec=spec, pictures=side, random_crop=random_crop) for side in sides)
        return PairData(spec=spec, first=first, second=second, paired=paired)

    return Splits(train=pair(train, crop == "random"), held_out=pair(rest, False))
