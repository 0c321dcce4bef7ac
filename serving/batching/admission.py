"""The door: how much may be under way at a time, and what can still be done in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any

from serving.batching.ticket import Backlog, Ticket
from serving.errors import Code, ServingError
from serving.observing.metrics import Metrics

_SHORTEST_RETRY, _LONGEST_RETRY = 0.1, 60.0
_PRUDENCE = 0.5  # a backlog that is let grow up to what can just be met makes everybody in it late
_CERTAINTY = 0.8  # the machine may be quicker than it was: only what is late by more than that is refused


class Admitted:
    """The room of a request that was let in. It leaves at the end of a block, or of a run."""

    def __init__(self, leave: Callable[[bool], None]) -> None:
        """`leave` is called once, and told whether the request failed."""
        self._leave = leave

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave(kind is not None)

    def until(self, run: asyncio.Future[Any]) -> None:
        """Holds the room while the run lasts, even a task that is cancelled before its first step."""
        run.add_done_callback(lambda run: self._leave(run.cancelled() or run.exception() is not None))


class Admission:
    """Bounds the engine's queues by admitting whole requests: each holds the rows of its largest call.

    A request that is under way is never refused its next step, and what is refused is refused at once. Where
    one would be refused as too slow for an idle machine, and the machine is idle, one in `look_again` seconds
    is let try: a cost that was measured wrongly would else never be measured again.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_bytes: int,
        slots: Callable[[], int],
        backlog: Backlog,
        metrics: Metrics,
        look_again: float = 10.0,
    ) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._slots = slots
        self._metrics = metrics
        metrics.rows_limit.set(max_rows)
        metrics.bytes_limit.set(max_bytes)
        self._rows = 0
        self._bytes = 0
        self._backlog = backlog
        self._look_again = look_again
        self._looked = monotonic()
        metrics.rows_admitted.set_function(lambda: self._rows)
        metrics.bytes_admitted.set_function(lambda: self._bytes)

    def admit(self, ticket: Ticket, size: int = 0) -> Admitted:
        """Takes the rows of a request, and so many bytes, until it leaves.

        RESOURCE_EXHAUSTED where there is no room or the backlog is too long for its deadline,
        DEADLINE_EXCEEDED where an idle machine would be too slow for it.
        """
        rows = max([work.rows for work in ticket.work], default=0)
        self._check_room(rows)
        self._check_deadline(ticket)
        self._check_bytes(size)
        self._rows += rows
        self._bytes += size
        self._backlog.add(ticket)
        return Admitted(partial(self._leave, ticket, rows, size))

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Holds more bytes for a request's tensors; RESOURCE_EXHAUSTED where there is no room."""
        self._check_bytes(size)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def _leave(self, ticket: Ticket, rows: int, size: int, failed: bool) -> None:
        if failed:
            for graph, computed in ticket.rows.items():
                self._metrics.graph(graph).rows_in_vain.inc(computed)
        self._backlog.remove(ticket)
        self._rows -= rows
        self._bytes -= size

    def _check_room(self, rows: int) -> None:
        if rows > self._max_rows:
            raise self._refusal(
                "too_large",
                f"the request computes {rows} rows at a time and the gateway at most {self._max_rows} for "
                f"everybody: ask for fewer images, or raise max_pending_rows",
                None,
            )
        if self._rows + rows > self._max_rows:
            raise self._refusal(
                "rows",
                f"the gateway is full: {self._rows} of {self._max_rows} rows are under way; ask again later",
                self._until_left((self._rows + rows - self._max_rows) / self._rows),
            )

    def _check_bytes(self, size: int) -> None:
        if size > self._max_bytes:
            raise self._refusal(
                "too_large",
                f"the request takes {size} bytes and the gateway has {self._max_bytes} for everybody: "
                f"ask for fewer or smaller images, or raise max_pending_bytes",
                None,
            )
        if self._bytes + size > self._max_bytes:
            raise self._refusal(
                "bytes",
                f"the gateway is full: {self._bytes} of {self._max_bytes} bytes are under way; "
                f"ask again later",
                self._until_left((self._bytes + size - self._max_bytes) / self._bytes),
            )

    def _check_deadline(self, ticket: Ticket) -> None:
        left = ticket.deadline - monotonic()
        allowed = left / _CERTAINTY
        duration = ticket.expected_duration
        if duration > allowed and self._may_try():
            ticket.expect_nothing()
            return
        if duration > allowed:
            self._metrics.refused.labels("hopeless").inc()
            raise ServingError(
                Code.DEADLINE_EXCEEDED,
                f"the request takes about {duration:.3g} s on an idle machine, and its deadline leaves "
                f"{max(0.0, left):.3g} s: ask for less, or set a later one",
            )
        left -= duration
        if self._waiting_time(self._backlog.seconds) <= left:
            return
        late = self._waiting_time(self._ahead_of(ticket)) - left
        if late > 0:
            raise self._refusal(
                "late",
                f"the deadline cannot be met: the requests before it take {late:.3g} s too long; "
                f"ask again later, or set a later one",
                late,
            )

    def _may_try(self) -> bool:
        if self._backlog.tickets or monotonic() < self._looked + self._look_again:
            return False
        self._looked = monotonic()
        return True

    def _ahead_of(self, ticket: Ticket) -> float:
        """Seconds of compute that go before a request: those of shorter ones, and of earlier deadlines."""
        place = (ticket.size, ticket.deadline)
        return sum(t.seconds_left for t in self._backlog.tickets if (t.size, t.deadline) <= place)

    def _waiting_time(self, seconds: float) -> float:
        """Time that must be there for so much compute to be done first."""
        return self._backlog.takes(seconds) / self._slots() / _PRUDENCE

    def _until_left(self, share: float) -> float:
        """Seconds until that share of what is under way has left."""
        return share * self._backlog.takes(self._backlog.seconds) / self._slots()

    def _refusal(self, reason: str, message: str, retry_after: float | None) -> ServingError:
        """An error, counted by reason; with `retry_after` the same may succeed after so many seconds."""
        if retry_after is not None:
            retry_after = min(_LONGEST_RETRY, max(_SHORTEST_RETRY, retry_after))
        self._metrics.refused.labels(reason).inc()
        return ServingError(Code.RESOURCE_EXHAUSTED, message, retry_after=retry_after)
