"""The door: how many rows may be under way at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from serving.errors import Code, ServingError
from serving.metrics import Metrics

_SMOOTHING = 0.1
_LONGEST_RETRY = 60.0


class Admission:
    """Bounds the engine's queues by admitting whole requests: each holds the rows of its largest call.

    A request that is under way is never refused its next step, and what is refused is refused at once.
    """

    def __init__(self, *, max_rows: int, metrics: Metrics) -> None:
        self._max_rows = max_rows
        self._metrics = metrics
        self._rows = 0
        self._seconds_per_row = 0.01
        self._last_left: float | None = None

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Holds `rows` while a request is under way; RESOURCE_EXHAUSTED where there is no room."""
        if rows > self._max_rows:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"the request computes {rows} rows at a time and the gateway at most {self._max_rows} for "
                f"everybody: ask for fewer images, or raise max_pending_rows",
            )
        if self._rows + rows > self._max_rows:
            self._metrics.refused.inc()
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"the gateway is full: {self._rows} of {self._max_rows} rows are under way; ask again later",
                retry_after=self._until_room_for(rows),
            )
        self._rows += rows
        self._metrics.rows_admitted.set(self._rows)
        entered = monotonic()
        try:
            yield
        finally:
            self._left(rows, entered)

    def _left(self, rows: int, entered: float) -> None:
        """Learns how fast rows leave while there is work."""
        now = monotonic()
        since = now - max(entered, self._last_left or entered)
        self._seconds_per_row += _SMOOTHING * (since / rows - self._seconds_per_row)
        self._last_left = now
        self._rows -= rows
        self._metrics.rows_admitted.set(self._rows)

    def _until_room_for(self, rows: int) -> float:
        excess = self._rows + rows - self._max_rows
        return min(_LONGEST_RETRY, max(0.1, excess * self._seconds_per_row))
