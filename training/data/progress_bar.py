"""A progress bar for data that take seconds to make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def shown(things: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The things, counted in a bar on the terminal that goes away when they are through."""
    console = Console(stderr=True)
    return track(things, what, total, console=console, transient=True, disable=not console.is_terminal)
