"""The service over HTTP: JSON messages, streams as SSE, pictures by `Accept`, and the pages."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access.door import Door
from serving.errors import Code, ServingError, not_found, one_of
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext, Service
from serving.settings import Settings
from serving.transports import http_open_inference as open_inference
from serving.transports import openapi
from serving.transports.http_door import HttpDoor, headers_of
from serving.transports.http_errors import EXCEPTION_HANDLERS, answer_error
from serving.transports.http_messages import PICTURES, picture_type, read_request, to_json
from serving.transports.http_requests import ClientGoneError, read_body, request_context, unless_gone
from serving.transports.methods import BY_VERB, Method
from serving.transports.off_loop import off_loop
from serving.transports.status import HTTP_CODES, internal_error
from serving.transports.status import to_json as error_json
from serving.transports.traced import TracedHttp

log = logging.getLogger(__name__)

NotReady = Callable[[], str | None]

_MODELS = "/v1/models/"
_WEB = Path(__file__).parents[1] / "web"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def create_app(
    service: Service,
    settings: Settings,
    registry: CollectorRegistry,
    not_ready: NotReady,
    door: Door | None = None,
) -> Starlette:
    """The application on the main port, behind a door of its own unless it shares one."""
    api = _Api(service, settings)
    document = openapi.build()

    async def openapi_json(_: Request) -> Response:
        return JSONResponse(document)

    async def page(_: Request, *, name: str) -> Response:
        return FileResponse(_WEB / name, headers=_PAGE_HEADERS)

    routes = [
        Route("/v1/models", api.list_models),
        Route("/v1/models/{model}", api.get_model),
        Route("/v1/models/{model}/card", api.card),
        Route("/v1/models/{model}/samples.png", api.samples),
        Route("/openapi.json", openapi_json),
        Route("/docs", partial(page, name="docs.html")),
        Route("/", partial(page, name="index.html")),
        Mount("/web", StaticFiles(directory=_WEB)),
        *_status_routes(registry, not_ready),
        *open_inference.routes(service.open_inference, settings, not_ready),
    ]
    traced = [] if service.tracer is None else [Middleware(TracedHttp, tracer=service.tracer)]
    middleware = [
        *traced,
        Middleware(HttpDoor, door=door or Door(settings), turned_away=service.turned_away),
        Middleware(_Calls, api=api),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


def create_metrics_app(registry: CollectorRegistry, not_ready: NotReady) -> Starlette:
    """The application on the metrics port: figures and health, and nothing that computes."""
    return Starlette(routes=_status_routes(registry, not_ready), exception_handlers=EXCEPTION_HANDLERS)


def _status_routes(registry: CollectorRegistry, not_ready: NotReady) -> list[Route]:
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        return PlainTextResponse(f"{reason or 'ready'}\n", status_code=503 if reason else 200)

    size = 0

    async def metrics(request: Request) -> Response:
        nonlocal size
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # With many models it takes longer than requests should have to wait; else a thread only adds to it.
        page = await off_loop(partial(encode, registry), size)
        size = len(page)
        return Response(page, headers={"Content-Type": content_type})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


class _Calls:
    """ASGI middleware that answers POST /v1/models/{model}:{verb}, past the routes and what is around them.

    Nearly all requests are that, and the event loop has enough to do with them.
    """

    def __init__(self, app: ASGIApp, api: _Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        called = _called(scope)
        if not called:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await self._api.call(request, called)
        except (ServingError, HTTPException) as error:
            response = await answer_error(request, error)
        await response(scope, receive, send)


class _Api:
    """The handlers of `/v1`."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings

    async def list_models(self, _: Request) -> Response:
        return _json(to_json(await self._service.list_models()))

    async def get_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        return _json(to_json(await self._service.get_model(pb.GetModelRequest(model=name))))

    async def card(self, request: Request) -> Response:
        model = request.path_params["model"]
        text = self._service.card(model)
        if text is None:
            raise not_found(
                "model",
                f"model {model!r} has no card here: `atelier evaluate` writes one, and Triton shows none",
            )
        return Response(text, media_type="text/markdown")

    async def samples(self, request: Request) -> Response:
        model = request.path_params["model"]
        picture = self._service.samples(model)
        if picture is None:
            raise not_found(
                "model",
                f"model {model!r} has no sample grid here: `atelier export` writes it, and Triton shows none",
            )
        return Response(picture, media_type="image/png", headers={"Cache-Control": "no-cache"})

    async def call(self, request: Request, called: str) -> Response:
        """POST /v1/models/{model}:{verb}"""
        model, colon, verb = called.rpartition(":")
        method = BY_VERB.get(verb) if colon else None
        if method is None:
            verbs = one_of(BY_VERB, asked=verb)
            raise not_found(
                "verb",
                f"POST to {request.url.path}: no such verb; post to /v1/models/MODEL:VERB, VERB {verbs}",
            )
        asked = request_context(request)
        try:
            body = await read_body(request, self._settings)
            return await unless_gone(request, self._answer(request, body, method, model, asked))
        except ClientGoneError:
            return Response(status_code=HTTP_CODES[Code.CANCELLED])
        except (ServingError, HTTPException):
            raise
        except Exception:
            log.exception("request %s, %s: internal error", asked.request_id, method.rpc)
            raise internal_error(asked.request_id) from None

    async def _answer(
        self, request: Request, body: bytes, method: Method, model: str, asked: RequestContext
    ) -> Response:
        headers = headers_of(request.scope)
        query = request.query_params.multi_items() if request.scope["query_string"] else []
        kind = headers.get("content-type", "")
        message = await off_loop(partial(read_request, method, model, query, kind, body), len(body))
        function = getattr(self._service, method.function)
        if method.streams:
            return await _event_stream(function(message, asked), asked)
        picture = picture_type(headers.get("accept", "")) if method.gives_images else None
        if picture is None:
            answer = await function(message, asked)
            return _json(await off_loop(partial(to_json, answer), answer.ByteSize()))
        message.format = pb.IMAGE_FORMAT_RAW_U8  # type: ignore[attr-defined]
        answer = await function(message, asked)
        content = await self._service.picture(answer.images, PICTURES[picture])
        return Response(content, media_type=picture, headers=_run_headers(answer.run))


def _called(scope: Scope) -> str:
    """The last part of the path of a POST to a model, empty for any other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(_MODELS):
        return ""
    called: str = scope["path"].removeprefix(_MODELS)
    return "" if "/" in called else called


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


def _run_headers(run: pb.RunInfo) -> dict[str, str]:
    """What was done, for an answer that is a bare picture."""
    queue, compute = (t.ToMicroseconds() / 1e3 for t in (run.queue_time, run.compute_time))
    headers = {
        "Atelier-Model": run.model,
        "Atelier-Version": str(run.version),
        "Atelier-Seed": str(run.seed),
        "Atelier-Sampler": run.sampler,
        "Atelier-Steps": str(run.steps or ""),
        "Server-Timing": f"queue;dur={queue:.3f}, compute;dur={compute:.3f}",
    }
    return {name: value for name, value in headers.items() if value}


async def _event_stream(events: AsyncGenerator[Message], asked: RequestContext) -> Response:
    """Server-sent events. What goes wrong before the first of them is an ordinary error."""
    first = await anext(events)

    async def frames() -> AsyncIterator[str]:
        async with contextlib.aclosing(events):
            yield _event(first)
            try:
                async for event in events:
                    yield _event(event)
            except ServingError as error:
                yield _frame("error", json.dumps(error_json(error)))
            except Exception:
                log.exception("request %s: internal error in a stream", asked.request_id)
                yield _frame("error", json.dumps(error_json(internal_error(asked.request_id))))

    return StreamingResponse(
        frames(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _event(event: Message) -> str:
    return _frame(str(event.WhichOneof("event")), to_json(event))


def _frame(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
