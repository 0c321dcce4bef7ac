"""What a run shows while it runs: a progress bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 10.0
"""Seconds between plain lines."""
BAR_SECONDS = 0.2
"""Seconds between changes of the bar."""


class TrainingProgress:
    """Steps done, rate, losses and time left; says nothing on processes other than the first."""

    def __init__(self, name: str, begin: int, steps: int, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._name, self._begin, self._done, self._steps = name, begin, begin, steps
        self._quiet, self._shown_at = quiet, -1
        self._losses: dict[str, float] = {}
        self._started = self._shown = time.monotonic()
        self._bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[left]}"),
                TextColumn("{task.fields[losses]}", style="cyan"),
                console=self.console,
                refresh_per_second=4,
                expand=True,
            )
            self._task = self._bar.add_task(name, total=steps, completed=begin, rate="", left="", losses="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._quiet and self._shown_at != self._done:
            self._show(self._done, time.monotonic())
        if self._bar is not None:
            self._bar.stop()

    def advance(self, done: int) -> None:
        """Say that `done` steps of the run are made; cheap when there is nothing new to show yet."""
        self._done, now = done, time.monotonic()
        if self._quiet or now - self._shown < (LINE_SECONDS if self._bar is None else BAR_SECONDS):
            return
        self._show(done, now)

    def losses(self, values: Mapping[str, float]) -> None:
        """Show these losses or held-out figures from now on."""
        self._losses |= values

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _show(self, done: int, now: float) -> None:
        self._shown, self._shown_at = now, self._done
        rate = (done - self._begin) / max(now - self._started, 1e-9)
        left = duration((self._steps - done) / rate) + " left" if rate else ""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in self._losses.items())
        speed = f"{rate:.1f} steps/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/step"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=speed, left=left, losses=losses)
        else:
            self.note(f"{self._name}: step {done:,} of {self._steps:,}, {speed}, {left}  {losses}")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds in the words of a clock: 0:42, 12:05, 3:07:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
