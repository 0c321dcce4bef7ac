"""Runs programs on the engine, each request admitted first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from serving.batching.admission import Admission, Admitted
from serving.batching.engine import Engine
from serving.batching.ticket import Ticket
from serving.calls import Program, Result, Tell


class Runner:
    """The door and what stands behind it."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def admitted(self, ticket: Ticket) -> Admitted:
        """Accounts for a request's rows, bytes and time; what is refused is refused at once."""
        self._engine.expect(ticket)
        size = sum([work.rows * self._engine.row_bytes(work.graph, ticket.version) for work in ticket.work])
        return self._admission.admit(ticket, size)

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Bytes that an admitted request turned out to take besides."""
        with self._admission.hold(size):
            yield

    def run(
        self, program: Program[Result], ticket: Ticket, tell: Tell | None = None
    ) -> asyncio.Future[Result]:
        """What the program returns, its calls computed by the engine and its progress told as it comes.

        Cancelling it withdraws its rows.
        """
        return self._engine.run(program, ticket, tell)
