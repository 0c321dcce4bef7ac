"""Which pictures lie in a folder, of which classes, and which belong together."""

from __future__ import annotations

import os
from pathlib import Path

from training.data import DataError
from training.data.decode import picture_suffixes


def list_pictures(folder: Path) -> list[str]:
    """Names of all pictures in a folder and below it, relative to it, sorted; hidden ones are left out."""
    suffixes = picture_suffixes()
    names = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        below = Path(root).relative_to(folder)
        names += [
            (below / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    if not names:
        raise DataError(
            f"{folder} holds no picture (.png, .jpg, .webp, ...): put some there, or give another"
        )
    return sorted(names)


def classes_of(folder: Path, names: list[str]) -> tuple[str, ...]:
    """The sub-folders as classes, where every picture lies in one and there are several."""
    loose = [name for name in names if "/" not in name]
    found = sorted({name.partition("/")[0] for name in names if "/" in name})
    if loose and found:
        raise DataError(
            f"{folder} holds pictures ({loose[0]}, ...) beside class folders ({found[0]}, ...): move them "
            f"into one, or set the option classes=false"
        )
    return tuple(found) if len(found) > 1 else ()


def matched(roots: list[Path], names: list[list[str]]) -> list[list[str]]:
    """The names of both folders in one order, so that pictures of the same name stand side by side."""
    stems = []
    for root, listed in zip(roots, names, strict=True):
        by_stem: dict[str, str] = {}
        for name in listed:
            stem = Path(name).with_suffix("").as_posix()
            if stem in by_stem:
                raise DataError(f"{root} holds both {by_stem[stem]} and {name}: in pairs, keep one of them")
            by_stem[stem] = name
        stems.append(by_stem)
    for root, other, here, there in zip(roots, roots[::-1], stems, stems[::-1], strict=True):
        alone = [name for stem, name in here.items() if stem not in there]
        if alone:
            some = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
            raise DataError(
                f"{len(alone)} pictures of {root} have no partner of that name in {other} ({some}): "
                f"add or remove some, or set the option paired=false"
            )
    order = sorted(stems[0])
    return [[by_stem[stem] for stem in order] for by_stem in stems]


def domain_names(roots: list[Path]) -> tuple[str, str]:
    """The names of the folders, or a and b where they have one name."""
    first, second = (root.resolve().name for root in roots)
    return (first, second) if first != second else ("a", "b")
