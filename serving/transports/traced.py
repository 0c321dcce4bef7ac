"""Opens the span of each request where it comes in: one wrapper for gRPC, one for HTTP, there if traced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from opentelemetry.trace import Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.observing.tracing import request_span

# Those that do no work of ours would only fill the collector.
_UNTRACED_SERVICES = ("/grpc.health.", "/grpc.reflection.")


class TracedGrpc(grpc.aio.ServerInterceptor):
    """Traces every RPC, health and reflection left out."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of the RPC, inside of a span."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(_UNTRACED_SERVICES):
            return handler
        service, _, method = details.method.lstrip("/").partition("/")
        name, attributes = (
            f"{service}/{method}",
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }

        def headers(context: Any) -> dict[str, str]:
            return {
                key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
            }

        if handler.response_streaming:
            answer_stream = handler.stream_stream if handler.request_streaming else handler.unary_stream

            async def stream(asked: Any, context: Any) -> AsyncIterator[Any]:
                with request_span(self._tracer, name, headers(context), attributes):
                    async for message in answer_stream(asked, context):
                        yield message

            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, **codec)
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        answer_one = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def one(asked: Any, context: Any) -> Any:
            with request_span(self._tracer, name, headers(context), attributes):
                return await answer_one(asked, context)

        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(one, **codec)
        return grpc.unary_unary_rpc_method_handler(one, **codec)


class TracedHttp:
    """Traces every POST, from its headers to the last byte of its answer."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # Paths name models that a client made up, which the span's name may not.
        name = "POST " + scope["path"].split("/")[1]
        attributes = {"http.request.method": "POST", "url.path": scope["path"]}
        with request_span(self._tracer, name, headers, attributes) as span:

            async def answered(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, answered)
