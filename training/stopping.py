"""SIGINT and SIGTERM end a run after the step that it is at, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from lightning_fabric import Fabric

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGREE_EVERY = 10
"""Steps after which several processes ask one another whether one was told to stop."""


class Stopping:
    """While entered, a first signal is noted and a second one acts as usual."""

    def __init__(self, fabric: Fabric) -> None:
        self.signal: int | None = None
        self._fabric = fabric
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def asked(self, done: int) -> bool:
        """Whether the run must end after `done` steps; the same answer in all processes."""
        if self._fabric.world_size == 1:
            return self.signal is not None
        if done % AGREE_EVERY:
            return False
        noted = torch.tensor(self.signal or 0, device=self._fabric.device)
        torch.distributed.all_reduce(noted, op=torch.distributed.ReduceOp.MAX)
        self.signal = int(noted) or None
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
