"""What every RPC has to do, whatever its service: who asks and by when, and errors as gRPC has them."""

from __future__ import annotations

import logging
import time
from typing import Any

import grpc.aio

from serving.errors import ServingError
from serving.requests.context import RequestContext, new_request_id
from serving.transports.grpc_door import who_calls
from serving.transports.grpc_errors import end
from serving.transports.status import internal_error

log = logging.getLogger(__name__)


def request_context(context: Any) -> RequestContext:
    """Who asks, by when, and under which name in the logs."""
    remaining = context.time_remaining()
    caller, client, metadata = who_calls(context)
    return RequestContext(
        deadline=None if remaining is None else time.monotonic() + remaining,
        request_id=metadata.get("x-request-id") or new_request_id(),
        client=client,
        transport="grpc",
        priority=metadata.get("x-atelier-priority", "interactive"),
        caller=caller,
    )


async def abort(context: Any, asked: RequestContext, rpc: str, error: Exception) -> None:
    """Ends a call with its status and details. Errors that are not the client's are logged, and not told."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, ServingError):
        log.error("request %s, %s: internal error", asked.request_id, rpc, exc_info=error)
        error = internal_error(asked.request_id)
    await end(context, error)
