"""The service over gRPC, with health (per service) and reflection: translates, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from serving.access.door import Door
from serving.process.ports import PortError, address, listen
from serving.service import RequestContext, Service
from serving.settings import Settings
from serving.transports import grpc_open_inference as open_inference
from serving.transports.grpc_calls import abort, request_context
from serving.transports.grpc_door import GrpcDoor
from serving.transports.grpc_health import Health
from serving.transports.methods import METHODS, SERVICE, Method
from serving.transports.traced import TracedGrpc

NotReady = Callable[[], str | None]

_SERVICES = (SERVICE.full_name, open_inference.SERVICE.full_name)

_SHARE_OF_DRAIN = 0.8  # gRPC adds up to a tenth, so that they do not all come at once
_PARTING_SECONDS = 1.0  # beyond the grace, in which those that the service cut off are told


def build_server(
    service: Service,
    settings: Settings,
    door: Door | None = None,
    not_ready: NotReady | None = None,
    health: Health | None = None,
) -> grpc.aio.Server:
    """A server of every RPC of the proto, of health and of reflection, not yet bound nor started."""
    traced = [] if service.tracer is None else [TracedGrpc(service.tracer)]
    server = grpc.aio.server(
        interceptors=traced,
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            *_connection_age(settings),
            # Otherwise a second gateway on the same port would take half of the first one's calls.
            ("grpc.so_reuseport", 0),
        ],
    )
    handlers = {method.rpc: _handler(service, method) for method in METHODS.values()}
    not_ready = not_ready or service.not_ready_reason
    guarded = GrpcDoor(door or Door(settings), service.turned_away)
    guarded.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),
            open_inference.handlers(service.open_inference, not_ready),
        )
    )
    health_pb2_grpc.add_HealthServicer_to_server(health or Health(_SERVICES, not_ready), guarded)
    names = (*_SERVICES, HEALTH, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer(service_names=names), guarded
    )
    server.add_generic_rpc_handlers((guarded,))
    return server


def _connection_age(settings: Settings) -> list[tuple[str, int]]:
    """Has clients connect anew before a gateway that drains stops.

    A server that stops cancels what reaches it before its client has heard of that. One that ends a
    connection by its age does not, so by the end of the drain nobody may be left on one.
    """
    age = settings.connection_age or _SHARE_OF_DRAIN * settings.drain_delay
    return [("grpc.max_connection_age_ms", max(1, round(1000 * age)))] if age else []


class GrpcServer:
    """A server of every RPC of the proto, bound to its port when it is made. Raises `PortError`."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        not_ready: NotReady,
        door: Door | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """A server behind a door of its own unless it shares one, over TLS where there are credentials."""
        self._grace = settings.shutdown_grace + _PARTING_SECONDS
        self._health = Health(_SERVICES, not_ready)
        self._server = build_server(service, settings, door, not_ready, self._health)
        self.port = _bind(self._server, settings, credentials)

    async def run(self, stopping: asyncio.Event, draining: asyncio.Event | None = None) -> None:
        """Serve until `stopping`; calls under way then get their grace. Health turns at `draining`."""
        await self._server.start()
        follow = asyncio.create_task(self._health.follow(draining or stopping), name="grpc health")
        try:
            await stopping.wait()
        finally:
            follow.cancel()
            self._health.end()
            await self._server.stop(self._grace)


def _bind(server: grpc.aio.Server, settings: Settings, credentials: grpc.ServerCredentials | None) -> int:
    where = address(settings.host, settings.grpc_port)
    try:
        if credentials is None:
            return server.add_insecure_port(where)
        return server.add_secure_port(where, credentials)
    except RuntimeError as error:
        listen(settings.host, settings.grpc_port, "--grpc-port").close()  # says why, as gRPC does not
        raise PortError(settings.host, settings.grpc_port, "--grpc-port", str(error)) from error


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
