"""Opens a data set by its name on the command line."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from training.data import DATASETS, DataError, Splits
from training.resolve import resolve


def open_data(name: str, **options: Any) -> Splits:
    """Opens `name` or `name:path` with the options of that data set, all checked before anything is read."""
    kind, colon, path = name.partition(":")
    if kind not in DATASETS:
        near = difflib.get_close_matches(kind, DATASETS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"data set {kind!r} is not one of {', '.join(DATASETS)}{hint}")
    opener: Callable[..., Splits] = resolve(DATASETS, kind, "data set")
    check_options(kind, opener, options)
    return opener(path if colon else None, **options)


def check_options(kind: str, opener: Callable[..., Splits], options: dict[str, Any]) -> None:
    """Refuses options that the opener of this data set does not take, and values of another type."""
    known = [p.name for p in inspect.signature(opener).parameters.values() if p.kind is p.KEYWORD_ONLY]
    types = typing.get_type_hints(opener)
    for option, value in options.items():
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise DataError(f"{kind} has no option {option!r}: {takes}{hint}")
        expected = types[option]
        right = type(value) in (int, float) if expected is float else type(value) is expected
        if not right:
            raise DataError(f"option {option}={value!r} of {kind} must be of type {expected.__name__}")


def no_path(kind: str, path: str | None) -> None:
    """Refuses a path after a data set that has none."""
    if path is not None:
        raise DataError(f"{kind} takes no path, and {path!r} was given: write --data {kind}")


def existing_folder(kind: str, path: str | None) -> Path:
    """The folder after the colon, which must be there and hold something."""
    if not path:
        raise DataError(f"{kind} needs a folder: write --data {kind}:PATH")
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"the folder {path!r} of {kind} does not exist: check the path after '{kind}:'")
    if not folder.is_dir():
        raise DataError(f"{path!r} of {kind} is a file: give the folder that holds the data")
    if not any(folder.iterdir()):
        raise DataError(f"the folder {path!r} of {kind} is empty: put the data there, or give another one")
    return folder


def in_range(kind: str, option: str, value: float, low: float, high: float) -> None:
    """Refuses an option outside of its range."""
    if not low <= value <= high:
        raise DataError(f"option {option}={value} of {kind} must lie between {low} and {high}")


def one_of(kind: str, option: str, value: object, choices: Collection[object]) -> None:
    """Refuses an option that is none of the choices."""
    if value not in choices:
        raise DataError(f"option {option}={value!r} of {kind} must be one of {', '.join(map(str, choices))}")
