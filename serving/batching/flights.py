"""Single flight: identical requests that are under way at the same time share one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from serving.batching.ticket import Ticket
from serving.calls import Progress, Tell
from serving.errors import ServingError

T = TypeVar("T")

Start = Callable[[Ticket, Tell], asyncio.Future[T]]
"""Begins a run, or raises what it is refused for."""


class _Flight(Generic[T]):
    """A run that several wait for."""

    __slots__ = ("listeners", "run", "ticket", "waiting")

    run: asyncio.Future[T]

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.listeners: list[Tell] = []
        self.waiting: set[asyncio.Future[T]] = set()

    def tell(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener(progress)

    def board(self, ticket: Ticket) -> None:
        """One more waits: the run has until the latest deadline, and the best priority of them all."""
        self.ticket.deadline = max(self.ticket.deadline, ticket.deadline)
        if ticket.weight > self.ticket.weight:
            self.ticket.client, self.ticket.weight = ticket.client, ticket.weight


class Flights(Generic[T]):
    """The runs under way that may be shared, by what is asked."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def boards(self, key: Hashable) -> bool:
        """Whether a request of that key would share a run."""
        return key in self._flights

    async def fly(self, key: Hashable, ticket: Ticket, start: Start[T], listener: Tell | None) -> T:
        """The result of the run of that key, which is begun unless it is under way.

        Each waiter may be cancelled for itself; the run ends when the last has gone. A failure is told to
        each of them, as an error of its own.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(ticket)
            flight.run = start(ticket, flight.tell)
            self._flights[key] = flight
            flight.run.add_done_callback(partial(self._arrive, key, flight))
        else:
            flight.board(ticket)
        # Its own, so that it may be cancelled for itself; with `shield` each request would take longer.
        arrival: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        flight.waiting.add(arrival)
        if listener is not None:
            flight.listeners.append(listener)
        try:
            return await arrival
        except asyncio.CancelledError:
            if arrival.done() and not arrival.cancelled():
                arrival.exception()  # read, so that asyncio does not report it as lost
            raise
        finally:
            flight.waiting.remove(arrival)
            if listener is not None:
                flight.listeners.remove(listener)
            if not flight.waiting and not flight.run.done():
                self._land(key, flight)
                flight.run.cancel()
                await asyncio.gather(flight.run, return_exceptions=True)

    def _arrive(self, key: Hashable, flight: _Flight[T], run: asyncio.Future[T]) -> None:
        self._land(key, flight)
        cancelled = run.cancelled()
        error = None if cancelled else run.exception()
        for arrival in flight.waiting:
            if arrival.done():
                continue
            if cancelled:
                arrival.cancel()
            elif error is not None:
                arrival.set_exception(error.again() if isinstance(error, ServingError) else error)
            else:
                arrival.set_result(run.result())

    def _land(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
