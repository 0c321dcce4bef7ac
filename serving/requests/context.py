"""What every request goes through: a deadline, a code, a count, and a gateway that may be stopping."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Container
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from time import monotonic
from types import TracebackType
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


class Tracked:
    """One request that is under way, for as long as its block lasts, in the task that it runs in.

    At the deadline the task is cancelled, and so are its rows. Whatever the block raises leaves as a
    `ServingError`; what is not one is logged in full and told to nobody. No generator, and a timer instead of
    `asyncio.timeout`: each request has one of these, and those take longer.
    """

    __slots__ = (
        "_began",
        "_cancelling",
        "_context",
        "_images",
        "_late",
        "_method",
        "_model",
        "_requests",
        "_task",
        "_timer",
        "_version",
        "_version_kept",
        "_what",
        "_work",
        "deadline",
    )

    def __init__(
        self, requests: Requests, method: str, model: str, context: RequestContext, images: int
    ) -> None:
        self._requests = requests
        self._method = method
        self._model = model if model in requests.models else UNKNOWN
        self._context = context
        self._images = images
        self._what = self._version = ""
        self._version_kept: AbstractContextManager[None] | None = None
        self._began = monotonic()
        asked = context.deadline
        self.deadline = asked if asked is not None else self._began + requests.default_deadline

    def resolved(self, task: str, version: int, keep: AbstractContextManager[None]) -> None:
        """What it asks of its model, and the version, which has been looked up and is kept until the request
        has ended."""
        self._what, self._version = task, str(version)
        describe_request(task=task, version=self._version)
        keep.__enter__()
        self._version_kept = keep

    def __enter__(self) -> Tracked:
        requests, context = self._requests, self._context
        self._task = _present_task()
        request_id.set(context.request_id)
        describe_request(request_id=context.request_id, method=self._method, model=self._model)
        requests.came(self._task, self._method)
        try:
            requests.let_in(context)
            self._work = context.caller.work(self._images)
            self._work.__enter__()
        except ServingError as error:
            self._ended(error.code)
            requests.metrics.turned_away(error)
            raise
        self._late = False
        self._cancelling = self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_at(self.deadline, self._give_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # As `asyncio.timeout` has it: whoever else cancelled the task is not to be outdone.
        others = self._late and self._task.uncancel() > self._cancelling
        self._work.__exit__(kind, error, traceback)
        if error is None:
            self._ended("OK")
            return
        told = self._told(error, late=self._late and not others)
        if told is None:
            self._ended(Code.CANCELLED)
            return
        self._ended(told.code)
        self._requests.metrics.turned_away(told)
        if told is not error:
            try:
                raise told from error
            finally:
                del told  # its traceback holds this frame

    def _give_up(self) -> None:
        self._late = True
        self._task.cancel()

    def _told(self, error: BaseException, *, late: bool) -> ServingError | None:
        """What an error is told as; None where nobody waits any more."""
        if isinstance(error, ServingError):
            return error
        if isinstance(error, Exception):
            name = self._context.request_id or "without id"
            log.error("%s of %s failed (request %s)", self._method, self._model, name, exc_info=error)
            return ServingError(Code.INTERNAL, "internal error; the log of the gateway says why")
        if not isinstance(error, asyncio.CancelledError):
            return None
        if late:
            seconds = monotonic() - self._began
            return ServingError(
                Code.DEADLINE_EXCEEDED,
                f"the deadline passed after {seconds:.1f} s: ask for less, or set a later one",
            )
        if self._requests.was_cut_off(self._task):
            return ServingError(Code.UNAVAILABLE, "the gateway stopped before it was done; ask again")
        return None

    def _ended(self, code: str) -> None:
        if self._version_kept is not None:
            self._version_kept.__exit__(None, None, None)
        seconds = monotonic() - self._began
        self._requests.went(self._task, self._method)
        del self._task  # whose error has a traceback that leads back here
        self._requests.metrics.answered(
            method=self._method,
            task=self._what,
            model=self._model,
            version=self._version,
            code=code,
            seconds=seconds,
            exemplar=exemplar(current()),
        )
        end_request(code)
        log.debug("%s of %s: %s after %.4f s", self._method, self._model, code, seconds)


def _present_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "requests run in tasks"
    return task


class Requests:
    """The requests under way."""

    def __init__(self, *, models: Container[str], default_deadline: float, metrics: Metrics) -> None:
        self.closing = False
        self.models = models
        self.default_deadline = default_deadline
        self.metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cut_off: set[asyncio.Task[Any]] = set()

    def track(self, method: str, model: str, context: RequestContext, *, images: int = 0) -> Tracked:
        """One request for so many images, for as long as the block lasts."""
        return Tracked(self, method, model, context, images)

    def came(self, task: asyncio.Task[Any], method: str) -> None:
        """A request is under way, in this task."""
        self._tasks.add(task)
        self.metrics.in_flight(method).inc()

    def went(self, task: asyncio.Task[Any], method: str) -> None:
        """It has ended."""
        self._tasks.discard(task)
        self.metrics.in_flight(method).dec()

    def let_in(self, context: RequestContext) -> None:
        """Raises `ServingError` for a request that is not let in: the gateway is stopping, or the caller or
        the priority is not one that may ask."""
        if self.closing:
            raise ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again", retry_after=1.0)
        if context.priority not in PRIORITIES:
            asked, known = context.priority, one_of(PRIORITIES, context.priority)
            raise invalid("x-atelier-priority", f"x-atelier-priority {asked!r} is not one of {known}")
        context.caller.require(USE)

    def was_cut_off(self, task: asyncio.Task[Any]) -> bool:
        """Whether the request of a task was cancelled because the gateway stopped."""
        return task in self._cut_off

    def require_admin(self, context: RequestContext) -> None:
        """Raises PERMISSION_DENIED, with the remedy, unless the caller may change the gateway."""
        try:
            context.require_admin()
        except ServingError as error:
            self.metrics.turned_away(error)
            raise

    def turned_away(self, reason: str) -> None:
        """Counts a caller whom a transport turned away, for a reason of `metrics.TURNED_AWAY`."""
        self.metrics.callers_turned_away.labels(reason).inc()

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
