"""A cache of arrays that take seconds to make, found by what they were made from and verified when read."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.arrays import digest_of

Arrays = dict[str, NDArray[Any]]


def cache_folder() -> Path:
    """`ATELIER_CACHE`, or `~/.cache/atelier`."""
    return Path(os.environ.get("ATELIER_CACHE") or Path.home() / ".cache" / "atelier")


def cached(name: str, made_from: Mapping[str, str | int], make: Callable[[], Arrays]) -> Arrays:
    """What `make` returns, kept under the name and a digest of what it is made from.

    A file that is damaged, or not what it says, is made again; where none can be written, nothing is kept.
    """
    key = digest_of(np.array([f"{part}={value}" for part, value in sorted(made_from.items())]))
    path = cache_folder() / f"{name}-{key[:16]}.npz"
    found = _read(path)
    if found is not None:
        return found
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(f"{name} is not cached: {error}; set ATELIER_CACHE to another folder", stacklevel=2)
    return arrays


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Digest over the arrays in the order of their names."""
    return digest_of(np.array(sorted(arrays)), *(arrays[name] for name in sorted(arrays)))


def _read(path: Path) -> Arrays | None:
    """The arrays in a file, or None where there is none that agrees with its own digest."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays: Arrays = dict(archive)
        expected = str(arrays.pop("sha256"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if _digest(arrays) == expected else None


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes beside and renames into place, so that a reader meets a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, sha256=np.array(_digest(arrays)), **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
