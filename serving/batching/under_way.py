"""A program under way: led from call to call for as long as somebody waits for its result."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from serving.batching.ticket import Ticket
from serving.calls import Call, Program, Progress, Tell, Tensors
from serving.observing.tracing import Traced


@dataclass(kw_only=True, eq=False, slots=True)
class UnderWay:
    """One program on its way through the engine."""

    program: Program[Any]
    """What is run."""
    ticket: Ticket
    """The request that it is run for."""
    future: asyncio.Future[Any]
    """Its result; done before its time when nobody waits for it any more."""
    tell: Tell | None = None
    """Who is told of its progress, if anybody."""
    traced: Traced | None = None
    """Its request's span, where that is traced."""

    def advance(self, reply: Tensors | None) -> Call | None:
        """The next call, the one before having been answered; None where the program has come to its end.

        Whatever the program or its listener raises is its result alone: it never leaves from here, where
        others of the same batch wait for their turn.
        """
        try:
            wanted = self.program.send(reply)
            while isinstance(wanted, Progress):
                if self.tell is not None:
                    self.tell(wanted)
                wanted = self.program.send(None)
        except StopIteration as stop:
            if not self.future.done():
                self.future.set_result(stop.value)
        except Exception as error:
            self.fail(error)
        else:
            return wanted
        return None

    def fail(self, error: Exception) -> None:
        """Ends it with an error, unless it has ended."""
        if not self.future.done():
            self.future.set_exception(error)
