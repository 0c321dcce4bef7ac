"""The door of the gRPC port: in front of every service that is registered there, whoever registers it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc

from serving.access.callers import ANYBODY, LOCAL, Caller, is_local
from serving.access.door import Door
from serving.errors import ServingError
from serving.transports.grpc_errors import end

# What says nothing of anybody's business: probes, which have no key.
_OPEN = re.compile(r"/grpc\.health\.v1\.Health/.*|/inference\.GRPCInferenceService/Server(Live|Ready)")
_CALL: ContextVar[_Call] = ContextVar("call")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class _Call:
    """A call that has come in."""

    __slots__ = ("_turned_away", "caller", "came", "metadata")

    def __init__(self, metadata: dict[str, Any], turned_away: Callable[[str], None]) -> None:
        self.metadata = metadata
        self.caller: Caller | None = None
        self.came = False  # whether its message has
        self._turned_away = turned_away

    def ended(self, _: asyncio.Task[Any]) -> None:
        if not self.came:
            self._turned_away("no_message")


class GrpcDoor(grpc.GenericRpcHandler):
    """Lets in who may come in, and notes in the context of the call who it is.

    Services are registered with the door, which stands for all of them on the server: an interceptor would
    do the same and take longer. `turned_away` counts who may not come in, and calls whose message does not
    come: gRPC itself ends those whose message is too large, and tells nobody why.
    """

    def __init__(self, door: Door, turned_away: Callable[[str], None]) -> None:
        self._door = door
        self._turned_away = turned_away
        self._behind: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Registers what stands behind the door, as on a server."""
        self._behind.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Nothing: the same handlers come as generic ones too, and by this way they would pass the door."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a call: its own, or one that refuses it. Asked in the task of the call."""
        method = handler_call_details.method
        call = _Call(dict(handler_call_details.invocation_metadata), self._turned_away)
        if self._door.needs_key and not _OPEN.fullmatch(method):
            shown = {name: value for name, value in call.metadata.items() if isinstance(value, str)}
            try:
                call.caller = self._door.enter(shown, local=False)
            except ServingError as error:
                if error.turned_away is not None:
                    self._turned_away(error.turned_away)
                return _refuse(error)
        _CALL.set(call)
        handler = self._handlers.get(method)
        if handler is None:
            found = (behind.service(handler_call_details) for behind in self._behind)
            handler = next((handler for handler in found if handler is not None), None)
            if handler is None:
                return None
            handler = self._handlers[method] = _noting(handler)
        if not handler.request_streaming:
            task = asyncio.current_task()
            assert task is not None, "calls run in tasks"
            task.add_done_callback(call.ended)
        return handler


def _noting(handler: Handler) -> Handler:
    """The handler of a method, which notes of each call that its one message has come."""
    if handler.request_streaming:
        return handler

    def read(message: bytes) -> Any:
        _CALL.get().came = True
        return message if handler.request_deserializer is None else handler.request_deserializer(message)

    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(handler.unary_stream, read, handler.response_serializer)
    assert handler.unary_unary is not None, "one message is answered by one or by many"
    return grpc.unary_unary_rpc_method_handler(handler.unary_unary, read, handler.response_serializer)


def who_calls(context: Any) -> tuple[Caller, str, Mapping[str, Any]]:
    """Who made a call that came through the door; whose turn it is when there are many, by the name of their
    key, else by their address; and the metadata of the call."""
    call = _CALL.get()
    peer, caller = _address(context.peer()), call.caller
    if caller is None:
        caller = LOCAL if is_local(peer) and "x-forwarded-for" not in call.metadata else ANYBODY
    return caller, caller.name or peer, call.metadata


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
