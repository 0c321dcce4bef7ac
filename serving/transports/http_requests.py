"""What every HTTP request has to do, whatever its API: who asks and by when, its body, and its going away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import Request

from serving.errors import invalid
from serving.requests.context import RequestContext, new_request_id
from serving.settings import Settings
from serving.transports.http_door import caller_of, client_of, headers_of
from serving.transports.http_errors import MediaTypeError, TooLargeError, TooSlowError

Result = TypeVar("Result")

_LEAST_RATE = 65_536  # bytes a second that a body may not stay below for long


PRESENCE, WHOLE_BODY = "presence", "whole_body"
"""What the server says in the state of a request's scope: whether its client is there, as a `Presence`, and
that no more of its body is to come."""


class Presence:
    """Whether a client is there, told by its connection: a task that waits for that would be one for each
    request."""

    def __init__(self) -> None:
        self.ended = False
        """Whether it has gone."""
        self._callbacks: set[Callable[[], object]] = set()

    def end(self) -> None:
        """It has gone."""
        self.ended = True
        for callback in tuple(self._callbacks):
            callback()

    @contextmanager
    def ends_with(self, callback: Callable[[], object]) -> Iterator[None]:
        """Calls a function when it goes during the block."""
        self._callbacks.add(callback)
        try:
            yield
        finally:
            self._callbacks.discard(callback)


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def request_context(request: Request) -> RequestContext:
    """Who asks, by when, and under which name in the logs."""
    headers = headers_of(request.scope)
    timeout = headers.get("x-request-timeout")
    deadline = None
    if timeout is not None:
        try:
            seconds = float(timeout)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise invalid(
                "X-Request-Timeout", f"X-Request-Timeout {timeout!r}: give seconds, above 0, as in 2.5"
            )
        deadline = time.monotonic() + seconds
    return RequestContext(
        deadline=deadline,
        request_id=headers.get("x-request-id") or new_request_id(),
        client=client_of(request),
        transport="http",
        priority=headers.get("x-atelier-priority", "interactive"),
        caller=caller_of(request),
    )


async def read_body(request: Request, settings: Settings, *, compressed: bool = False) -> bytes:
    """The body; raises `TooLargeError` as soon as it is over the limit, `TooSlowError` where it trickles, and
    `ClientGoneError` where it ends before it should.

    One with a `Content-Encoding` is `compressed`, and taken only by who can tell what it may grow to.
    """
    limit = settings.max_message_bytes
    headers = headers_of(request.scope)
    declared = headers.get("content-length", "")
    expected = int(declared) if declared.isdigit() else limit
    if expected > limit:
        raise TooLargeError(limit)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity" and not compressed:
        raise MediaTypeError(f"a body with Content-Encoding {encoding!r}: send it as it is, not compressed")
    if WHOLE_BODY in request.scope["state"]:
        return await _receive(request, limit, lambda size: None)
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(settings.receive_timeout) as patience:

            def wait_longer(size: int) -> None:
                if size < expected:
                    patience.reschedule(began + settings.receive_timeout + size / _LEAST_RATE)

            return await _receive(request, limit, wait_longer)
    except TimeoutError as error:
        raise TooSlowError(asyncio.get_running_loop().time() - began) from error


async def _receive(request: Request, limit: int, more_is_to_come: Callable[[int], None]) -> bytes:
    chunks, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLargeError(limit)
        if not message.get("more_body", False):
            return b"".join(chunks)
        more_is_to_come(size)


async def unless_gone(request: Request, answer: Coroutine[Any, Any, Result]) -> Result:
    """The answer, unless its client goes away first: then it is cancelled, and `ClientGoneError` raised."""
    task = asyncio.current_task()
    assert task is not None, "requests run in tasks"
    presence: Presence = request.scope["state"].get(PRESENCE) or Presence()
    if presence.ended:
        answer.close()
        raise ClientGoneError
    try:
        with presence.ends_with(task.cancel):
            return await answer
    except asyncio.CancelledError:
        if presence.ended and not task.uncancel():
            raise ClientGoneError from None
        raise
