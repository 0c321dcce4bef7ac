"""What every RPC has to do, whatever its service: who asks and by when, and errors as gRPC has them."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from serving.access import ANYBODY, LOCAL, is_local
from serving.errors import Code, ServingError
from serving.requests import RequestContext
from serving.status import internal_error, to_status

log = logging.getLogger(__name__)

GRPC_CODES: Mapping[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
"""gRPC's status of each code."""

_DETAILS = "grpc-status-details-bin"  # where gRPC's rich error model keeps a google.rpc.Status


def request_context(context: Any) -> RequestContext:
    """Who asks, by when, and under which name in the logs."""
    remaining = context.time_remaining()
    metadata = dict(context.invocation_metadata() or ())
    peer = _peer(context)
    return RequestContext(
        deadline=None if remaining is None else time.monotonic() + remaining,
        request_id=metadata.get("x-request-id") or secrets.token_hex(8),
        client=peer,
        transport="grpc",
        priority=metadata.get("x-atelier-priority", "interactive"),
        caller=LOCAL if is_local(peer) and "x-forwarded-for" not in metadata else ANYBODY,
    )


def _peer(context: Any) -> str:
    """Address of the peer without its port; empty for a socket of the file system."""
    kind, _, rest = unquote(context.peer()).partition(":")
    return re.sub(r":\d+$", "", rest).strip("[]") if kind in ("ipv4", "ipv6") else ""


async def abort(context: Any, asked: RequestContext, rpc: str, error: Exception) -> None:
    """Ends a call with its status and details. Errors that are not the client's are logged, and not told."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, ServingError):
        log.error("request %s, %s: internal error", asked.request_id, rpc, exc_info=error)
        error = internal_error(asked.request_id)
    details = ((_DETAILS, to_status(error).SerializeToString()),)
    await context.abort(GRPC_CODES[error.code], error.message, details)
