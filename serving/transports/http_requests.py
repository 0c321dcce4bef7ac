"""What every HTTP request has to do, whatever its API: who asks and by when, its body, and its going away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from serving.errors import invalid
from serving.requests.context import RequestContext, new_request_id
from serving.settings import Settings
from serving.transports.http_door import caller_of, client_of, headers_of
from serving.transports.http_errors import MediaTypeError, TooLargeError, TooSlowError

Result = TypeVar("Result")

_LEAST_RATE = 65_536  # bytes a second that a body may not stay below for long


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
        async with asyncio.timeout(settings.receive_timeout) as patience:
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
        async with asyncio.timeout(None) as presence:
            watch = asyncio.create_task(_watch(request, presence))
            try:
                return await answer
            finally:
                watch.cancel()
    except TimeoutError:
        if presence.expired():
            raise ClientGoneError from None
        raise


async def _watch(request: Request, presence: asyncio.Timeout) -> None:
    """Ends a block when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    presence.reschedule(asyncio.get_running_loop().time())
