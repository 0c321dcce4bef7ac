"""The door of the gRPC port: in front of every service that is registered there, whoever registers it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio

from serving.access.callers import ANYBODY, LOCAL, Caller, is_local
from serving.access.door import Door
from serving.errors import ServingError
from serving.transports.grpc_errors import end

# What says nothing of anybody's business: probes, which have no key.
_OPEN = re.compile(r"/grpc\.health\.v1\.Health/.*|/inference\.GRPCInferenceService/Server(Live|Ready)")
_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class GrpcDoor(grpc.aio.ServerInterceptor):
    """Lets in who may come in, and notes in the context of the call who it is."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of a call: its own, or one that refuses it."""
        caller = None
        if self._door.needs_key and not _OPEN.fullmatch(handler_call_details.method):
            metadata = {
                name: value
                for name, value in handler_call_details.invocation_metadata
                if isinstance(value, str)
            }
            try:
                caller = self._door.enter(metadata, local=False)
            except ServingError as error:
                return _refuse(error)
        _CALLER.set(caller)
        return await continuation(handler_call_details)


def caller_of(context: Any) -> Caller:
    """Who made a call that came through the door."""
    caller = _CALLER.get()
    if caller is not None:
        return caller
    forwarded = any(name == "x-forwarded-for" for name, _ in context.invocation_metadata() or ())
    return LOCAL if is_local(_peer(context)) and not forwarded else ANYBODY


def client_of(context: Any) -> str:
    """Whose turn it is when there are many: by the name of their key, else by their address."""
    return caller_of(context).name or _peer(context)


def _peer(context: Any) -> str:
    """Address of the peer without its port; empty for a socket of the file system."""
    kind, _, rest = unquote(context.peer()).partition(":")
    return re.sub(r":\d+$", "", rest).strip("[]") if kind in ("ipv4", "ipv6") else ""


def _refuse(error: ServingError) -> Handler:
    """A handler for calls of every kind, which does not wait for what the client has to say."""

    async def refused(_: AsyncIterator[bytes], context: Any) -> None:
        await end(context, error)

    return grpc.stream_stream_rpc_method_handler(refused)
