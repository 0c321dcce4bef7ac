"""Whether others are about to join what waits, asked before a short call begins."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

_TURNS = 24
_WORTH_LOOKING = 0.25
_LOOK_AGAIN = 31  # odd: where two clients take turns, not always the same one
_MEMORY = 0.1

# Whoever carries requests to the event loop, a thread of gRPC or the client itself, may wait for this core.
_give_way: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))


class Company:
    """Lets rows join that are on their way, as long as it takes next to no time.

    A short call costs the event loop and the threads more than its rows do. Under load requests stand in line
    for the event loop and not for an instance: they come one by one, an instance is free each time, and every
    one would have a call of its own. So before a short call begins the event loop turns some times more, and
    each row that comes meanwhile begins the count anew. Turns in which nothing happens pass in microseconds,
    and those in which something does are not lost.

    With few clients nobody comes. So it is remembered how often somebody did, and where that was seldom the
    event loop goes on at once but for one call in 31, to see whether it still is so.
    """

    def __init__(self) -> None:
        self._luck = 0.0
        self._calls = 0
        self._looking = False
        self._first_rows = self._rows = 0
        self._turns = 0

    def may_come(self, rows: int) -> bool:
        """Whether to turn the event loop once more, now that so many rows wait for a call to begin."""
        if not self._looking:
            self._calls += 1
            if self._luck < _WORTH_LOOKING and self._calls % _LOOK_AGAIN:
                return False
            self._looking = True
            self._first_rows = self._rows = rows
        if rows > self._rows:
            self._rows, self._turns = rows, 0
        self._turns += 1
        if self._turns > _TURNS:
            return False
        _give_way()
        return True

    def begins(self, rows: int) -> bool:
        """The call begins, with so many rows that wait. Returns whether some of them came meanwhile."""
        if not self._looking:
            return False
        came = rows > self._first_rows
        self._luck += _MEMORY * (came - self._luck)
        self._looking = False
        self._turns = 0
        return came
