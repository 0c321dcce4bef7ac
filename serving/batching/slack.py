"""Time to spare: how long those that have a deadline can wait."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

from serving.batching.ticket import Ticket


class Slack:
    """How long requests can wait if they are computed one after the other, the earliest deadline first.

    If any order has all of them in time, this one has (Jackson 1955). Requests that share batches take less.
    """

    def __init__(self, tickets: Iterable[Ticket], now: float, rate: float) -> None:
        """`rate` are the seconds of compute that are got done in a second."""
        ordered = sorted(tickets, key=attrgetter("deadline"))
        self._deadlines = [ticket.deadline for ticket in ordered]
        needed = accumulate(max(ticket.seconds_left, ticket.duration_left) for ticket in ordered)
        spare = (
            ticket.deadline - now - seconds / rate for ticket, seconds in zip(ordered, needed, strict=True)
        )
        self._spare = list(accumulate(spare, min))

    @property
    def enough(self) -> bool:
        """Whether everybody can be in time."""
        return not self._spare or self._spare[-1] >= 0

    def before(self, deadline: float) -> float:
        """Seconds that those can wait that must be done before a deadline; negative where they are late."""
        place = bisect_left(self._deadlines, deadline)
        return self._spare[place - 1] if place else math.inf


@dataclass(frozen=True, kw_only=True)
class Urgency:
    """A deadline is near."""

    horizon: float
    """What must begin before it goes before whatever need not."""
    slack: Callable[[float], Slack]
    """What there will be to spare at a time, of all that is under way."""
