"""What every HTTP request has to do, whatever its API: who asks and by when, its body, and its going away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from serving.access import ANYBODY, LOCAL, Caller, came_straight, is_local
from serving.errors import Code, ServingError, invalid
from serving.requests import RequestContext

Result = TypeVar("Result")

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class TooLargeError(ServingError):
    """A body over the limit; HTTP has a status of its own for it."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            f"the body is over {limit} bytes: send less at a time, or raise --max-message-bytes",
        )


def request_context(request: Request) -> RequestContext:
    """Who asks, by when, and under which name in the logs."""
    timeout = request.headers.get("x-request-timeout")
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
        request_id=request.headers.get("x-request-id") or secrets.token_hex(8),
        client=request.client.host if request.client else "",
        transport="http",
        priority=request.headers.get("x-atelier-priority", "interactive"),
        caller=_caller(request),
    )


def _caller(request: Request) -> Caller:
    headers = request.headers
    straight = came_straight(
        headers.get("host", ""), headers.get("origin", ""), (headers.get(name, "") for name in _FORWARDED)
    )
    return LOCAL if straight and is_local(request.client.host if request.client else "") else ANYBODY


async def read_body(request: Request, limit: int) -> bytes:
    """The body; raises `TooLargeError` as soon as it is over the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLargeError(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLargeError(limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def unless_gone(request: Request, answer: Coroutine[Any, Any, Result]) -> Result:
    """The answer, unless its client goes away first: then it is cancelled, and `ClientGoneError` raised."""
    work = asyncio.create_task(answer)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientGoneError
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
