"""What every HTTP request has to do, whatever its API: who asks and by when, its body, and its going away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
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
    """Whether a client is there, told by its connection: to wait for that would take a task for each request."""

    def __init__(self) -> None:
        self._ended = False
        self._callbacks: set[Callable[[], None]] = set()

    def end(self) -> None:
        """It has gone."""
        self._ended = True
        for callback in tuple(self._callbacks):
            callback()

    @contextmanager
    def ends_with(self, callback: Callable[[], None]) -> Iterator[None]:
        """Calls a function when it goes during the block, or at once where it has gone."""
        self._callbacks.add(callback)
        try:
            if self._ended:
                callback()
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
    chunks, size, more = [], 0, True
    began = asyncio.get_running_loop().time()
    try:
        # What is there already is not waited for.
        there = WHOLE_BODY in request.scope["state"]
        async with asyncio.timeout(None if there else settings.receive_timeout) as patience:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise TooLargeError(limit)
                more = message.get("more_body", False)
                if more and size < expected:
                    patience.reschedule(began + settings.receive_timeout + size / _LEAST_RATE)
    except TimeoutError as error:
        raise TooSlowError(asyncio.get_running_loop().time() - began) from error
    return b"".join(chunks)


async def unless_gone(request: Request, answer: Coroutine[Any, Any, Result]) -> Result:
    """The answer, unless its client goes away first: then it is cancelled, and `ClientGoneError` raised."""
    try:
        async with asyncio.timeout(None) as waiting:
            now = asyncio.get_running_loop().time()
            presence: Presence = request.scope["state"].get(PRESENCE) or Presence()
            with presence.ends_with(partial(waiting.reschedule, now)):
                return await answer
    except TimeoutError:
        if waiting.expired():
            raise ClientGoneError from None
        raise
