"""The service over gRPC, with health (per service) and reflection: translates, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.grpc_calls import abort, request_context
from serving.methods import METHODS, SERVICE, Method
from serving.oip import rpc as open_inference
from serving.ports import PortError, address, listen
from serving.service import RequestContext, Service
from serving.settings import Settings

NotReady = Callable[[], str | None]

_HEALTH_SECONDS = 1.0
_PARTING_SECONDS = 1.0  # beyond the grace, in which those that the service cut off are told


def build_server(service: Service, settings: Settings, not_ready: NotReady) -> grpc.aio.Server:
    """A server of every RPC of the proto, not yet bound nor started."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Otherwise a second gateway on the same port would take half of the first one's calls.
            ("grpc.so_reuseport", 0),
        ]
    )
    handlers = {method.rpc: _handler(service, method) for method in METHODS.values()}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),
            open_inference.handlers(service.open_inference, not_ready),
        )
    )
    return server


class GrpcServer:
    """A server of every RPC of the proto, bound to its port when it is made. Raises `PortError`."""

    def __init__(self, service: Service, settings: Settings, not_ready: NotReady) -> None:
        self._grace = settings.shutdown_grace + _PARTING_SECONDS
        self._not_ready = not_ready
        self._server = build_server(service, settings, not_ready)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            SERVICE.full_name,
            open_inference.SERVICE.full_name,
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)
        self.port = _bind(self._server, settings)

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping`; health turns first, then calls under way get their grace."""
        await _tell_health(self._health, ready=False)
        await self._server.start()
        watch = asyncio.create_task(_watch_health(self._health, self._not_ready), name="grpc health")
        try:
            await stopping.wait()
        finally:
            watch.cancel()
            await self._health.enter_graceful_shutdown()
            await self._server.stop(self._grace)


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    try:
        return server.add_insecure_port(address(settings.host, settings.grpc_port))
    except RuntimeError as error:
        listen(settings.host, settings.grpc_port, "--grpc-port").close()  # says why, as gRPC does not
        raise PortError(settings.host, settings.grpc_port, "--grpc-port", str(error)) from error


async def _watch_health(status: Any, not_ready: NotReady) -> None:
    while True:
        await _tell_health(status, ready=not_ready() is None)
        await asyncio.sleep(_HEALTH_SECONDS)


async def _tell_health(status: Any, *, ready: bool) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", SERVICE.full_name):
        await status.set(name, serving)


def _handler(service: Service, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    function = getattr(service, method.function)
    codec: dict[str, Any] = {
        "request_deserializer": method.request.FromString,
        "response_serializer": method.response.SerializeToString,
    }
    if method.streams:

        async def stream(request: Message, context: Any) -> AsyncIterator[Message]:
            asked = request_context(context)
            try:
                async for event in function(request, asked):
                    yield event
            except Exception as error:
                await abort(context, asked, method.rpc, error)

        return grpc.unary_stream_rpc_method_handler(stream, **codec)

    call: Callable[[Message, RequestContext], Awaitable[Message]] = function
    if method.verb is None:  # the RPCs that read the catalog ask for no engine, and so for no context

        async def call(request: Message, _: RequestContext) -> Message:
            arguments = () if not method.request.DESCRIPTOR.fields else (request,)
            answer: Message = await function(*arguments)
            return answer

    async def unary(request: Message, context: Any) -> Message:
        asked = request_context(context)
        try:
            return await call(request, asked)
        except Exception as error:
            await abort(context, asked, method.rpc, error)
            raise

    return grpc.unary_unary_rpc_method_handler(unary, **codec)
