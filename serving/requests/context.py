"""What every request goes through: a deadline, a code, a count, and a gateway that may be stopping."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Container
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import Any

from serving.access.callers import ADMIN, ANYBODY, USE, Caller
from serving.batching.ticket import Ticket, Work
from serving.errors import Code, ServingError, invalid, one_of
from serving.manifest import Manifest
from serving.observing.logs import request_id
from serving.observing.metrics import UNKNOWN, Metrics
from serving.observing.tracing import current, describe_request, end_request, exemplar

log = logging.getLogger(__name__)


_GATEWAY = secrets.token_hex(6)
_numbers = count(1)

PRIORITIES = {"interactive": 8.0, "batch": 1.0}
"""Shares of the machine by priority: where both wait, interactive requests get eight seconds to one."""


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """What a transport knows of one request."""

    deadline: float | None = None
    """When the client stops waiting, in seconds of `time.monotonic`; None for the gateway's default."""
    request_id: str = ""
    """Name of the request in logs."""
    client: str = ""
    """Who asks, for fairness between clients: the name of their key, else the peer's address without its
    port."""
    transport: str = ""
    """`grpc` or `http`, for logs."""
    priority: str = "interactive"
    """One of `PRIORITIES`, from the client's `x-atelier-priority`."""
    caller: Caller = ANYBODY
    """Who asks, and what they may."""

    def require_admin(self) -> None:
        """Raises PERMISSION_DENIED, with the remedy, unless the caller may change the gateway."""
        self.caller.require(ADMIN)


def new_request_id() -> str:
    """A name for a request that came without one: no other has it, in this gateway or in another."""
    return f"{_GATEWAY}{next(_numbers):08x}"


@dataclass(kw_only=True, slots=True)
class Tracked:
    """What is known of a request that is under way."""

    deadline: float
    """When it ends at the latest, in seconds of `time.monotonic`."""
    task: str = ""
    """What it asks of its model, once that has been looked up."""
    version: str = ""
    """Of which version."""
    held: AbstractContextManager[None] | None = None
    """What keeps that version loaded."""

    def resolved(self, task: str, version: int, keep: AbstractContextManager[None]) -> None:
        """Its model has been looked up, and is kept until the request has ended."""
        self.task, self.version = task, str(version)
        describe_request(task=task, version=self.version)
        keep.__enter__()
        self.held = keep

    def release(self) -> None:
        """It has ended."""
        if self.held is not None:
            self.held.__exit__(None, None, None)


class Requests:
    """The requests under way."""

    def __init__(self, *, models: Container[str], default_deadline: float, metrics: Metrics) -> None:
        self.closing = False
        self._models = models
        self._default_deadline = default_deadline
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cut_off: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def track(
        self, method: str, model: str, context: RequestContext, *, images: int = 0
    ) -> AsyncIterator[Tracked]:
        """One request for so many images, in the task that it runs in.

        At the deadline the body is cancelled, and so are its rows. Whatever it raises leaves as a
        `ServingError`; what is not one is logged in full and told to nobody.
        """
        began = monotonic()
        code = "OK"
        model = model if model in self._models else UNKNOWN
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self._tasks.add(task)
        deadline = context.deadline if context.deadline is not None else began + self._default_deadline
        tracked = Tracked(deadline=deadline)
        request_id.set(context.request_id)
        describe_request(request_id=context.request_id, method=method, model=model)
        self._metrics.in_flight(method).inc()
        try:
            if self.closing:
                raise ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again", retry_after=1.0)
            if context.priority not in PRIORITIES:
                asked, known = context.priority, one_of(PRIORITIES, context.priority)
                raise invalid("x-atelier-priority", f"x-atelier-priority {asked!r} is not one of {known}")
            context.caller.require(USE)
            with context.caller.work(images):
                async with asyncio.timeout_at(deadline):
                    yield tracked
        except ServingError as error:
            code = error.code
            self._metrics.turned_away(error)
            raise
        except TimeoutError as error:
            code = Code.DEADLINE_EXCEEDED
            seconds = monotonic() - began
            raise ServingError(
                code, f"the deadline passed after {seconds:.1f} s: ask for less, or set a later one"
            ) from error
        except asyncio.CancelledError:
            code = Code.CANCELLED
            if task not in self._cut_off:
                raise
            code = Code.UNAVAILABLE
            raise ServingError(code, "the gateway stopped before it was done; ask again") from None
        except Exception as error:
            code = Code.INTERNAL
            log.exception("%s of %s failed (request %s)", method, model, context.request_id or "without id")
            raise ServingError(code, "internal error; the log of the gateway says why") from error
        finally:
            self._tasks.discard(task)
            tracked.release()
            seconds = monotonic() - began
            self._metrics.in_flight(method).dec()
            self._metrics.answered(
                method=method,
                task=tracked.task,
                model=model,
                version=tracked.version,
                code=code,
                seconds=seconds,
                exemplar=exemplar(current()),
            )
            end_request(code)
            log.debug("%s of %s: %s after %.4f s", method, model, code, seconds)

    def require_admin(self, context: RequestContext) -> None:
        """Raises PERMISSION_DENIED, with the remedy, unless the caller may change the gateway."""
        try:
            context.require_admin()
        except ServingError as error:
            self._metrics.turned_away(error)
            raise

    def turned_away(self, reason: str) -> None:
        """Counts a caller whom a transport turned away, for a reason of `metrics.TURNED_AWAY`."""
        self._metrics.callers_turned_away.labels(reason).inc()

    async def close(self, grace: float) -> None:
        """Takes no more, gives those under way `grace` seconds, and cancels what is left then."""
        self.closing = True
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            self._cut_off |= late
            for task in late:
                task.cancel()
            if late:
                log.warning("%d requests were cut off when the gateway stopped", len(late))
                await asyncio.wait(late)


def new_ticket(
    context: RequestContext, version: int, deadline: float, graph: Manifest | None = None, rows: int = 0
) -> Ticket:
    """The ticket of a request, which calls one graph once unless its work is said later.

    What a client sends with one priority shares alike, and apart from what it sends with another.
    """
    return Ticket(
        version=version,
        deadline=deadline,
        client=f"{context.client} {context.priority}",
        weight=PRIORITIES[context.priority],
        work=() if graph is None else (Work(graph=graph.graph, rows=rows),),
    )
