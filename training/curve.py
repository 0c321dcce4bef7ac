"""The curve of a run: losses and held-out figures by step, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXED = ("step", "seconds", "cpu_seconds")
"""Columns of every point: updates made, wall-clock and processor time so far."""


class Curve:
    """Points of the curve, kept in memory for checkpoints and written as they come."""

    def __init__(self, run: Path, points: Sequence[Mapping[str, float]], tensorboard: bool) -> None:
        self.points: list[Mapping[str, float]] = list(points)
        self._path = run / "curve.csv"
        self._columns: list[str] = []
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # imports for a second

            begin = int(points[-1]["step"]) + 1 if points else 0
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=begin)
        self._write_all()

    def add(self, point: Mapping[str, float]) -> None:
        """Append a point; it has the `FIXED` values, and others by name."""
        self.points.append(point)
        if all(name in self._columns for name in point):
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(_shortened(point))
        else:
            self._write_all()
        if self._board is not None:
            for name, value in point.items():
                if name not in FIXED:
                    tag = name if "/" in name else f"train/{name}"
                    self._board.add_scalar(tag, value, int(point["step"]))

    def picture(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Show a picture, uint8 [height, width, channels], in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._board is not None:
            self._board.close()

    def _write_all(self) -> None:
        names = {name: None for point in self.points for name in point}
        self._columns = [*FIXED, *(name for name in names if name not in FIXED)]
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(_shortened(point) for point in self.points)


def _shortened(point: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.7g}" for name, value in point.items()}
