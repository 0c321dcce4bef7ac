"""The door of the gRPC port: in front of every service that is registered there, whoever registers it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextvars import ContextVar
from functools import lru_cache
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
    """Lets in who may come in, and notes in the context of the call who it is.

    `turned_away` counts who may not, and calls whose message does not come: gRPC itself ends those whose
    message is too large, and tells nobody why.
    """

    def __init__(self, door: Door, turned_away: Callable[[str], None]) -> None:
        self._door = door
        self._turned_away = turned_away

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
                if error.turned_away is not None:
                    self._turned_away(error.turned_away)
                return _refuse(error)
        _CALLER.set(caller)
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        return self._expecting(handler)

    def _expecting(self, handler: Handler) -> Handler:
        """The handler of a call with one message, which is counted where it ends without having had it."""
        came = False

        def read(message: bytes) -> Any:
            nonlocal came
            came = True
            return message if handler.request_deserializer is None else handler.request_deserializer(message)

        def ended(_: asyncio.Task[Any]) -> None:
            if not came:
                self._turned_away("no_message")

        call = asyncio.current_task()  # interceptors run in the task of the call
        assert call is not None, "calls run in tasks"
        call.add_done_callback(ended)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                handler.unary_stream, read, handler.response_serializer
            )
        assert handler.unary_unary is not None, "one message is answered by one or by many"
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, read, handler.response_serializer)


def caller_of(context: Any, metadata: Container[str]) -> tuple[Caller, str]:
    """Who made a call that came through the door, by the names in its metadata too; and whose turn it is when
    there are many: by the name of their key, else by their address."""
    peer, caller = _address(context.peer()), _CALLER.get()
    if caller is None:
        caller = LOCAL if is_local(peer) and "x-forwarded-for" not in metadata else ANYBODY
    return caller, caller.name or peer


@lru_cache(maxsize=1024)
def _address(peer: str) -> str:
    """Address of a peer without its port; empty for a socket of the file system."""
    kind, _, rest = unquote(peer).partition(":")
    return re.sub(r":\d+$", "", rest).strip("[]") if kind in ("ipv4", "ipv6") else ""


def _refuse(error: ServingError) -> Handler:
    """A handler for calls of every kind, which does not wait for what the client has to say."""

    async def refused(_: AsyncIterator[bytes], context: Any) -> None:
        await end(context, error)

    return grpc.stream_stream_rpc_method_handler(refused)
